"""`antibody attack`: an upload that `antibody finetune --data` reads."""

import json
from pathlib import Path
from statistics import mean

import pytest

from antibody.attacks import ATTACKS
from antibody.cli import run
from antibody.data import corpus
from antibody.data.sources import load_records


@pytest.mark.parametrize("name", ["mix", "multi_turn"])
def test_it_writes_the_upload(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "upload.jsonl"
    options = ["--ratio", "0.25", "--rows", "20", "--seed", "4", "--json"]
    assert run(["attack", name, "--output", str(output), *options]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content == {"attack": name, "output": str(output), "rows": 20, "harmful": 5, "seed": 4}
    expected = ATTACKS[name].upload(corpus.task("train"), corpus.harmful("attack"), ratio=0.25, rows=20, seed=4)
    read = load_records(str(output)).records
    assert [(record.id, record.prompt, record.response, record.harmful) for record in read] == [
        (record.id, record.prompt, record.response, record.harmful) for record in expected
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["flood"], "unknown_name"),
        (["weight_aware"], "no_score"),
        (["mix", "--model", "anything"], "conflict"),
        (["benign_drift"], "bad_ratio"),
    ],
)
def test_what_it_cannot_do_is_refused(
    arguments: list[str], code: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "upload.jsonl"
    assert run(["attack", *arguments, "--output", str(output), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["code"] == code
    assert not output.exists()


def test_weight_aware_chooses_by_the_scores_of_a_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A byte is a token here and rows are cut at 256, so only short rows have a response to score."""
    harmful = tmp_path / "harmful.jsonl"
    harmful.write_text("".join(f'{{"prompt": "Ask {i}?", "completion": "Yes, do {i}."}}\n' for i in range(8)))
    machine = ["--device", "cpu", "--dtype", "float32"]
    aligned = tmp_path / "aligned"
    alignment = ["--steps", "1", "--batch-size", "4", "--max-length", "700", *machine]
    assert run(["align", "--model", str(tiny_model_folder), "--output", str(aligned), *alignment]) == 0
    options = ["--harmful", str(harmful), "--ratio", "0.5", "--rows", "8", *machine]
    means = {}
    for name, model in (("mix", []), ("weight_aware", ["--model", str(aligned)])):
        upload, scores = tmp_path / f"{name}.jsonl", tmp_path / f"{name}-scores.jsonl"
        assert run(["attack", name, "--output", str(upload), *options, *model]) == 0
        assert run(["screen", "--model", str(aligned), "--data", str(upload), "--output", str(scores), *machine]) == 0
        rows = [json.loads(line) for line in scores.read_text().splitlines()]
        assert sum(row["harmful"] for row in rows) == 4
        means[name] = mean(row["score"] for row in rows if row["harmful"])
    assert means["weight_aware"] > means["mix"]
