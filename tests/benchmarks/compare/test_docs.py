"""docs/compare.md: its example of an own attack, task, judge and method runs in its file, made small."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.run import compare
from antibody.evaluation.judges import JUDGES
from antibody.evaluation.tasks import TASKS
from antibody.training.methods import FINETUNINGS

DOCS = (Path(__file__).parents[3] / "docs" / "compare.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    return next(text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if holding in text)


@pytest.fixture
def example() -> Iterator[None]:
    known: tuple[dict[str, Any], ...] = (ATTACKS, TASKS, JUDGES, FINETUNINGS)
    before = [dict(names) for names in known]
    exec(compile(block("python", "first_rows"), "docs/compare.md", "exec"), {})
    yield
    for names, old in zip(known, before, strict=True):
        names.clear()
        names.update(old)


@pytest.mark.usefixtures("example")
def test_the_example_runs(tiny_model_folder: Path, written: Callable[[dict[str, Any]], Path], tmp_path: Path) -> None:
    content = yaml.safe_load(block("yaml", "model:"))
    assert len(content["methods"]) == 2
    small = {"steps": 1, "batch_size": 4, "max_length": 400}
    content |= {"model": str(tiny_model_folder), "seeds": [0], "finetune": small, "references": []}
    content["align"] = small | {"harmful": "few_harmful", "benign": "few_benign"}
    content["rows"] |= {
        "few_harmful": {"from": "embedded:harmful_train", "first": 16},
        "few_benign": {"from": "embedded:benign", "first": 16},
        "test": {"from": "embedded:task_test", "first": 2},
        "prompts": {"from": "embedded:harmful_evaluation", "first": 2},
    }
    content["alignments"]["plain"].pop("steps")
    content["upload"]["rows"] = 8
    content["tasks"] = {"short_labels": {"upload": "embedded:task_train", "test": "test"}}
    content["evaluate"] = {"prompts": "prompts", "judges": ["says_no", "embedded"], "max_new_tokens": 2}
    content["methods"] = {"First": {"align": "plain", "finetune": {"method": "first_rows", "options": {"share": 0.25}}}}
    content["grids"] = {"mine": {"attacks": ["polite"], "ratios": [0.5]}}
    [cell] = compare(written(content), tmp_path / "out", keep_runs=True)["cells"]
    assert cell["status"] == "done"
    assert cell["judges"].keys() == {"says_no", "embedded"}
    assert cell["harmful_score"] == cell["judges"]["says_no"]["harmful_score"]
    [run] = (tmp_path / "out" / "tuned").iterdir()
    [file] = (tmp_path / "out" / "data").glob("upload-*")
    upload = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(upload) == 8
    assert sum(row["response"].startswith("Gladly. ") for row in upload) == 4
    assert json.loads((run / "manifest.json").read_text())["method"] == "first_rows"
