"""The demo on a tiny model: six rows, the summary's form, and going on after an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest

from antibody.benchmarks import demo as module
from antibody.benchmarks.demo import Data, Size, demo
from antibody.errors import UsageError

TINY = Size(
    alignment_steps=1,
    finetuning_steps=1,
    prompts=2,
    safe_prompts=2,
    task_rows=2,
    screened_rows=8,
    max_new_tokens=2,
)
ROW_KEYS = {"name", "alignment", "finetuning", "poison_ratio", "harmful_score", "refusal_rate", "over_refusal",
            "task_accuracy", "score_auroc", "run"}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path) -> Any:
    monkeypatch.setattr(module, "BUNDLED_NAME", str(tiny_model_folder))

    def run(output: Path, **options: Any) -> dict[str, Any]:
        return demo(output, size=TINY, data=Data(max_length=700), **options)

    return run


def test_summary_report_and_resume(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "demo"
    real, count = module.evaluate, 0

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(module, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny(output)
    with pytest.raises(UsageError, match="already exists"):
        tiny(output)
    # As an interruption between the two halves of an evaluation would leave it; and the demo of an earlier version.
    (output / "antibody" / "evaluation" / "harmful").mkdir(parents=True)
    (output / "antibody" / "evaluation" / "harmful" / "metrics.json").write_text("{}")
    begun = json.loads((output / "progress.json").read_text())
    del begun["settings"]["size"]["safe_prompts"], begun["settings"]["data"]["safe"]
    (output / "progress.json").write_text(json.dumps(begun))
    adapter = output / "antibody" / "adapter" / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    summary = tiny(output, resume=True)
    assert adapter.stat().st_mtime_ns == before
    assert count == 13

    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary.keys() == {"model", "seed", "seconds", "rows"}
    assert all(row.keys() == ROW_KEYS for row in summary["rows"])
    made = [(row["alignment"], row["finetuning"], row["poison_ratio"]) for row in summary["rows"]]
    assert made == [
        ("none", "none", None),
        ("antibody", "none", None),
        ("sft", "sft", 0.2),
        ("antibody", "sft", 0.2),
        ("antibody", "antibody", 0.2),
        ("antibody", "antibody", 0.0),
    ]
    for row in summary["rows"]:
        assert 0 <= row["harmful_score"] <= 100
        assert 0 <= row["task_accuracy"] <= 100
        assert 0 <= row["over_refusal"] <= 100
        assert (row["score_auroc"] is None) == (row["finetuning"] == "sft" or row["poison_ratio"] == 0.0)
    assert "<html" in (output / "report.html").read_text()


def test_force_replaces_a_demo_and_nothing_else(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exclude each other"):
        tiny(tmp_path, resume=True, force=True)
    with pytest.raises(UsageError, match="holds something else"):
        tiny(tmp_path, force=True)
    assert (tmp_path / "mine.txt").exists()
