"""The attacker who sees the score: what is gained by it, and what it costs."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antibody.attacks import ATTACKS
from antibody.attacks.weight_aware import CANDIDATES, EDITS
from antibody.data import corpus
from antibody.data.records import Record
from antibody.errors import UsageError

BENIGN = corpus.task("train")
HARMFUL = corpus.harmful("attack")
UPLOAD = ATTACKS["weight_aware"].upload


def digits_and_braces(records: Sequence[Record]) -> list[float]:
    """A toy score, under which no one edit is the best for all rows."""
    return [
        sum(sign.isdigit() or sign in "{,}" for sign in record.response) - len(record.request) for record in records
    ]


def harmful_scores(upload: Sequence[Record]) -> list[float]:
    return digits_and_braces([record for record in upload if record.harmful])


def test_it_needs_a_score() -> None:
    with pytest.raises(UsageError) as caught:
        UPLOAD(BENIGN, HARMFUL, ratio=0.2, rows=50, seed=0)
    assert caught.value.code == "no_score"
    assert [attack.name for attack in ATTACKS.values() if attack.uses_score] == ["weight_aware"]


@pytest.mark.parametrize("seed", range(5))
def test_its_rows_score_higher_than_those_of_a_mix(seed: int) -> None:
    chosen = UPLOAD(BENIGN, HARMFUL, ratio=0.2, rows=100, seed=seed, score=digits_and_braces)
    mixed = ATTACKS["mix"].upload(BENIGN, HARMFUL, ratio=0.2, rows=100, seed=seed)
    assert mean(harmful_scores(chosen)) > mean(harmful_scores(mixed)) + 10


@settings(deadline=None)
@given(ratio=st.floats(0, 1), rows=st.integers(1, 80), seed=st.integers(0, 2**31))
def test_it_stays_within_its_budget(ratio: float, rows: int, seed: int) -> None:
    seen: list[Record] = []

    def score(records: Sequence[Record]) -> list[float]:
        seen.extend(records)
        return digits_and_braces(records)

    UPLOAD(BENIGN, HARMFUL, ratio=ratio, rows=rows, seed=seed, score=score)
    assert len(seen) <= CANDIDATES * round(rows * ratio)
    assert all(times <= len(EDITS) for times in Counter(record.id for record in seen).values())


def test_it_takes_the_best_edit_of_the_best_prompts() -> None:
    """With 8 harmful rows and 4 to choose, all 8 are tried: the choice is what sorting all candidates says."""
    seen: list[Record] = []

    def score(records: Sequence[Record]) -> list[float]:
        seen.extend(records)
        return digits_and_braces(records)

    upload = UPLOAD(BENIGN, HARMFUL[:8], ratio=0.5, rows=8, seed=3, score=score)
    assert len(seen) == 8 * len(EDITS)
    best = {}
    for record in sorted(seen, key=lambda record: digits_and_braces([record])[0]):
        best[record.id] = digits_and_braces([record])[0]
    assert sorted(harmful_scores(upload)) == sorted(best.values())[-4:]
    assert len({record.id for record in upload if record.harmful}) == 4
