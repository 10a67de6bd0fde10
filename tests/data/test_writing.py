"""Rows that are written, and read back as they were."""

import json
from pathlib import Path

from antibody.data.reading import read_records
from antibody.data.records import Record, chat_record
from antibody.data.writing import write_records


def test_records_are_written_and_read_back(tmp_path: Path) -> None:
    user, system = {"role": "user", "content": "Hallo, wer da?"}, {"role": "system", "content": ""}
    turns = (system, user, {"role": "assistant", "content": "Ich."}, {"role": "user", "content": "Wer, „ich“?"})
    records = [
        chat_record("Hallo, wer da?", "Ich.", id="a", line=1, harmful=False, category="greeting"),
        Record(prompt=(system, user), response="Ich.", id="b#2", line=2, harmful=True),  # type: ignore[arg-type]
        Record(prompt=turns, response="Niemand.", id="c", line=3),  # type: ignore[arg-type]
    ]
    path = tmp_path / "rows.jsonl"
    write_records(path, records)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {
        "id": "a",
        "prompt": "Hallo, wer da?",
        "response": "Ich.",
        "harmful": False,
        "category": "greeting",
    }
    assert rows[2] == {"id": "c", "prompt": list(turns), "response": [{"role": "assistant", "content": "Niemand."}]}
    for written, read in zip(records, read_records(path).records, strict=True):
        assert read.source == str(path)
        assert [getattr(written, name) for name in ("prompt", "response", "id", "line", "harmful", "category")] == [
            getattr(read, name) for name in ("prompt", "response", "id", "line", "harmful", "category")
        ]


def test_a_plain_prompt_becomes_a_question(tmp_path: Path) -> None:
    write_records(tmp_path / "rows.jsonl", [Record(prompt="Once upon", response=" a time.", id="a", line=1)])
    [record] = read_records(tmp_path / "rows.jsonl").records
    assert record == chat_record("Once upon", " a time.", id="a", line=1, source=str(tmp_path / "rows.jsonl"))
