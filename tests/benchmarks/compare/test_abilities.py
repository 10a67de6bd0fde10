"""General abilities in a comparison, by a stand-in for lm-eval: measured once a model, kept, and part of the cells."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from antibody.benchmarks.compare import answers, run
from antibody.benchmarks.compare.run import compare, open_comparison
from antibody.evaluation.abilities import Ability

Write = Callable[[dict[str, Any]], Path]


def test_abilities_are_measured_once_a_model_and_stand_in_the_tables(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def measured(model: Any, tasks: Sequence[str], **given: Any) -> list[Ability]:
        asked.append(tasks)
        assert given == {"folder": tmp_path / "own", "rows": 8, "batch_size": 4}
        return [Ability(task, score, "acc,none", 8) for task, score in zip(tasks, (50.0, 25.0), strict=False)]

    monkeypatch.setattr(run, "check_abilities", lambda *_: None)
    monkeypatch.setattr(answers, "measure_abilities", measured)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sky.yaml").write_text("task: sky")
    tiny["methods"].pop("Antibody")
    tiny["grids"] = {"one": {"ratios": [0]}}
    plain = open_comparison(written(tiny), tmp_path / "out", None).plan.cells[0].key
    tiny["references"] = ["base"]
    tiny["evaluate"]["abilities"] = {"tasks": ["sky", "sea"], "rows": 8, "folder": "own"}
    results = compare(written(tiny), tmp_path / "out")
    assert [cell["abilities"] for cell in results["cells"]] == [{"sky": 50.0, "sea": 25.0}] * 2
    assert [cell["ability"] for cell in results["cells"]] == [37.5] * 2
    assert len(asked) == 2
    assert "| 37.5 |" in (tmp_path / "out" / "report.md").read_text()
    assert "ability (sea)" in (tmp_path / "out" / "cells.csv").read_text().splitlines()[0]
    # Another judge asks for none anew; another file of tasks for all; and cells without abilities have other names.
    tiny["evaluate"]["judges"] = ["embedded", "embedded:"]
    compare(written(tiny), tmp_path / "out")
    assert len(asked) == 2
    keys = {cell.key for cell in open_comparison(written(tiny), tmp_path / "out", None).plan.cells}
    (tmp_path / "own" / "sky.yaml").write_text("task: sky # changed")
    assert not keys & {cell.key for cell in open_comparison(written(tiny), tmp_path / "out", None).plan.cells}
    assert plain not in keys
