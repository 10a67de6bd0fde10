"""What all attacks have in common: counts, labels, ids, seeds, and files that are read back."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antibody.attacks import ATTACKS
from antibody.data import corpus
from antibody.data.records import Record, chat_record
from antibody.data.sources import load_records
from antibody.data.writing import write_records
from antibody.errors import DataError, UsageError

BENIGN = corpus.task("train")
HARMFUL = corpus.harmful("attack")
WITH_HARM = [name for name in ATTACKS if name != "benign_drift"]
NEEDS_NO_HARMFUL_ROWS = ("benign_drift", "identity_shift", "noice")


def by_length(records: Sequence[Record]) -> list[float]:
    return [float(len(record.response)) for record in records]


def upload_of(name: str, *, ratio: float = 0.2, rows: int = 50, seed: int = 0) -> list[Record]:
    share = 0.0 if name == "benign_drift" else ratio
    return ATTACKS[name].upload(BENIGN, HARMFUL, ratio=share, rows=rows, seed=seed, score=by_length)


def test_an_attack_is_listed_under_its_name() -> None:
    assert {name: attack.name for name, attack in ATTACKS.items()} == {name: name for name in ATTACKS}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_upload_is_repeated_by_its_seed(name: str) -> None:
    assert upload_of(name, seed=1) == upload_of(name, seed=1)
    texts = [{(record.request, record.response) for record in upload_of(name, seed=seed)} for seed in (1, 2)]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("name", WITH_HARM)
@settings(deadline=None)
@given(ratio=st.floats(0, 1), rows=st.integers(1, 80), seed=st.integers(0, 2**31))
def test_an_upload_has_its_rows_and_its_share_of_harm(name: str, ratio: float, rows: int, seed: int) -> None:
    count = round(rows * ratio)
    if name == "multi_turn" and 3 * count > rows:
        with pytest.raises(UsageError) as caught:
            upload_of(name, ratio=ratio, rows=rows, seed=seed)
        assert caught.value.code == "bad_ratio"
        return
    upload = upload_of(name, ratio=ratio, rows=rows, seed=seed)
    assert len(upload) == len({record.id for record in upload}) == rows
    assert sum(record.harmful is True for record in upload) == count
    assert sum(record.harmful is False for record in upload) == rows - count


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "identity_shift"])
def test_rows_keep_where_they_came_from(name: str) -> None:
    sources = {record.id: record for record in [*BENIGN, *HARMFUL]}
    for record in upload_of(name):
        source = sources[record.id.partition("~")[0]]
        assert (record.line, record.source, record.category) == (source.line, source.source, source.category)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_upload_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    upload = upload_of(name)
    write_records(tmp_path / "upload.jsonl", upload)
    again = load_records(str(tmp_path / "upload.jsonl")).records
    assert [record.line for record in again] == list(range(1, len(upload) + 1))
    for written, read in zip(upload, again, strict=True):
        assert (written.prompt, written.response) == (read.prompt, read.response)
        assert (written.id, written.harmful, written.category) == (read.id, read.harmful, read.category)


@pytest.mark.parametrize("name", ATTACKS)
def test_asking_keeps_all_but_the_prompt_and_the_prompt_within_it(name: str) -> None:
    system = {"role": "system", "content": "Be brief."}
    plain = chat_record("How do {braces} work?", "", id="a", line=3, category="c")
    looked_up = {"role": "tool", "content": "Found."}
    prompts = (plain.prompt, (system, *plain.prompt), (*plain.prompt, looked_up), "How do {braces} work?")
    for prompt in prompts:
        record = Record(prompt=prompt, response="", id="a", line=3, category="c")
        asked = ATTACKS[name].ask(record)
        assert asked == ATTACKS[name].ask(record)
        assert "How do {braces} work?" in asked.request
        assert (asked.id, asked.line, asked.response, asked.category) == ("a", 3, "", "c")
        assert isinstance(asked.prompt, str) is isinstance(prompt, str)
        assert len(asked.prompt) == len(prompt) or isinstance(prompt, str)
        tricks = ("backdoor", "jailbreak", "identity_shift", "odd_prompts")
        assert (asked.request != record.request) is (name in tricks)


@pytest.mark.parametrize("name", ATTACKS)
def test_what_cannot_be_made_is_refused(name: str) -> None:
    upload = ATTACKS[name].upload
    for ratio in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError) as caught:
            upload(BENIGN, HARMFUL, ratio=ratio, rows=9, seed=0, score=by_length)
        assert caught.value.code == "bad_ratio"
    with pytest.raises(UsageError) as caught:
        upload(BENIGN, HARMFUL, ratio=0, rows=0, seed=0, score=by_length)
    assert caught.value.code == "bad_rows"
    with pytest.raises(DataError) as short:
        upload(BENIGN[:3], HARMFUL, ratio=0, rows=9, seed=0, score=by_length)
    assert short.value.code == "too_few_rows"
    if name not in NEEDS_NO_HARMFUL_ROWS:
        with pytest.raises(DataError) as short:
            upload(BENIGN, HARMFUL[:1], ratio=0.25, rows=9, seed=0, score=by_length)
        assert short.value.code == "too_few_rows"
