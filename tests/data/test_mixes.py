"""Counts, ids and repeatability of mixes."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antibody.data.mixes import align_records, choose_anchors, hold_out, mix, poison
from antibody.data.records import Record, chat_record
from antibody.errors import DataError, UsageError


def rows(kind: str, count: int, *, harmful: bool | None = None) -> list[Record]:
    """Rows with the default ids of a file, which two files share."""
    return [
        chat_record(f"{kind} {line}", f"answer {line}", id=f"row-{line}", line=line, harmful=harmful)
        for line in range(1, count + 1)
    ]


def kinds(records: list[Record]) -> Counter[str]:
    return Counter(record.request.split()[0] for record in records)


@given(
    refusals=st.integers(1, 30),
    benign=st.integers(1, 10),
    percent=st.integers(0, 90),
    seed=st.integers(0, 2**31),
)
def test_a_mix_keeps_refusals_and_has_the_share_of_benign_rows(
    refusals: int, benign: int, percent: int, seed: int
) -> None:
    mixed = mix(rows("refused", refusals), rows("benign", benign), percent / 100, seed=seed)
    share = Fraction(percent, 100)
    wanted = refusals * share / (1 - share)
    assert abs(kinds(mixed)["benign"] - wanted) <= Fraction(1, 2) + Fraction(1, 10**9)
    assert Counter(r.request for r in mixed if "refused" in r.request) == Counter(
        r.request for r in rows("refused", refusals)
    )
    assert len({record.id for record in mixed}) == len(mixed)
    times = Counter(record.request for record in mixed if "benign" in record.request).values()
    assert not times or max(times) - (min(times) if len(times) == benign else 0) <= 1


def test_a_mix_is_repeated_by_its_seed_and_shuffled() -> None:
    sides = rows("refused", 20), rows("benign", 20)
    mixed = mix(*sides, 0.5, seed=1)
    assert mixed == mix(*sides, 0.5, seed=1)
    assert mixed != mix(*sides, 0.5, seed=2)
    assert [record.request for record in mixed[:20]] != [record.request for record in sides[0]]


def test_a_row_that_comes_again_has_a_new_id() -> None:
    mixed = mix(rows("refused", 3), [chat_record("benign", "yes", id="b", line=1)], 0.5, seed=0)
    assert sorted(record.id for record in mixed) == ["b", "b~2", "b~3", "row-1", "row-2", "row-3"]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_an_impossible_benign_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError) as caught:
        mix(rows("refused", 3), rows("benign", 3), ratio, seed=0)
    assert caught.value.code == "bad_ratio"


def test_a_mix_needs_its_sides() -> None:
    for refusals, benign in ((0, 3), (3, 0)):
        with pytest.raises(DataError) as caught:
            mix(rows("refused", refusals), rows("benign", benign), 0.5, seed=0)
        assert caught.value.code == "too_few_rows"
    assert len(mix(rows("refused", 3), [], 0.0, seed=0)) == 3


@given(ratio=st.floats(0, 1), count=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_an_upload_has_exactly_the_poison_asked_for(ratio: float, count: int, seed: int) -> None:
    upload = poison(rows("benign", 20), rows("harmful", 20), ratio, rows=count, seed=seed)
    assert len(upload) == len({record.id for record in upload}) == len({record.request for record in upload}) == count
    assert kinds(upload)["harmful"] == round(count * ratio)
    assert all(record.harmful is record.request.startswith("harmful") for record in upload)
    assert upload == poison(rows("benign", 20), rows("harmful", 20), ratio, rows=count, seed=seed)


def test_poison_is_spread_and_leaves_labels_that_exist() -> None:
    upload = poison(rows("benign", 50, harmful=True), rows("harmful", 50), 0.5, rows=100, seed=0)
    assert all(record.harmful for record in upload)
    assert 0 < kinds(upload[:50])["harmful"] < 50


def test_an_upload_that_cannot_be_made_is_refused() -> None:
    for ratio, count, kind, code in (
        (1.1, 4, UsageError, "bad_ratio"),
        (float("nan"), 4, UsageError, "bad_ratio"),
        (0.5, 0, UsageError, "bad_rows"),
        (0.5, 10, DataError, "too_few_rows"),
        (0.1, 10, DataError, "too_few_rows"),
    ):
        with pytest.raises(kind) as caught:
            poison(rows("benign", 5), rows("harmful", 4), ratio, rows=count, seed=0)
        assert caught.value.code == code


def test_harmful_prompts_are_answered_by_refusals_in_turn() -> None:
    aligned = align_records(rows("harmful", 3, harmful=True), ["No.", "Never."])
    assert [(record.request, record.response, record.harmful) for record in aligned] == [
        ("harmful 1", "No.", False),
        ("harmful 2", "Never.", False),
        ("harmful 3", "No.", False),
    ]
    assert align_records([], []) == []
    with pytest.raises(DataError):
        align_records(rows("harmful", 1), [])


def test_anchors_are_refusals_the_hardest_benign_rows_and_others() -> None:
    refused = [chat_record(f"refused {i}", "No.", id=f"refused-{i}") for i in range(100)]
    benign = [chat_record(f"benign {i}", "Yes.", id=f"benign-{i}") for i in range(500)]
    ranked = [(record, float(index)) for index, record in enumerate(benign)]
    anchors = choose_anchors(refused, ranked, seed=1)
    assert anchors == choose_anchors(refused, ranked, seed=1)
    assert len(anchors) == len({record.id for record in anchors}) == 256
    assert sum(record in refused for record in anchors) == 64
    assert all(record in anchors for record in benign[:96])
    few = choose_anchors(refused[:3], ranked[:5], seed=1)
    assert sorted(record.id for record in few) == sorted(record.id for record in [*refused[:3], *benign[:5]])


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(1, 20), st.integers(0, 3))
def test_held_out_rows_share_no_prompt_with_the_others(prompts: int, share: float, most: int, seed: int) -> None:
    rows = [chat_record(f"prompt {i % prompts}", f"answer {i}", id=str(i)) for i in range(3 * prompts)]
    train, held_out = hold_out(rows, share, most=most, seed=seed)
    assert len(train) + len(held_out) == len(rows)
    assert not {record.request for record in train} & {record.request for record in held_out}
    assert 1 <= len({record.request for record in held_out}) <= most
    assert train


def test_one_prompt_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="2 different prompts are needed"):
        hold_out([chat_record("?", "a", id="1"), chat_record("?", "b", id="2")], 0.5, most=5, seed=0)
