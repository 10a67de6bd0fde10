"""A comparison's reports from results that are written here, holes and further judges included."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from antibody.errors import DataError
from antibody.reports import print_report, write_report
from antibody.reports.grid.figures import heat_map, ratio_figure
from antibody.reports.grid.reading import read_grid
from antibody.reports.grid.summary import frontier, lines_of, spread, worst_cases


def cell(
    method: str, ratio: float | None, seed: int, hs: float | None, fa: float = 80.0, **more: Any
) -> dict[str, Any]:
    labels = {
        "grid": "g",
        "method": method,
        "attack": "mix",
        "ratio": ratio,
        "task": "sst2",
        "variant": "",
        "seed": seed,
    }
    if hs is None:
        return labels | {"status": "failed", "error": {"code": "diverged", "message": "It <diverged>."}}
    figures = {
        "harmful_score": hs,
        "harmful_score_interval": [0.0, 50.0],
        "unparsable_rate": 2.0,
        "prompts": 50,
        "task_accuracy": fa,
        "task_rows": 50,
        "judges": {"embedded": {"harmful_score": hs}, "other": {"harmful_score": hs / 2, "unparsable_rate": 9.0}},
    }
    return labels | {"status": "done"} | figures | more


CELLS = [
    cell("A", None, 0, 4.0),
    *(cell("A", 0.0, seed, 4.0) for seed in range(3)),
    *(cell("A", 0.2, seed, hs) for seed, hs in enumerate((8.0, 10.0, 12.0))),
    *(cell("B", 0.0, seed, 20.0, 90.0) for seed in range(3)),
    cell("B", 0.2, 0, 60.0, 90.0),
    cell("B", 0.2, 1, None),
    cell("B", 0.2, 2, None) | {"status": "missing"},
    cell("C|<b>", 0.2, 0, 61.0, 79.0),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = {"kind": "comparison", "model": "tiny", "judge": "embedded", "cells": CELLS}
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_an_interval_of_seeds_is_student_s_and_never_narrower_than_wilson_s() -> None:
    """Of 8, 10 and 12%: sd 2, t(0.975, 2) = 4.3027, so half is 4.3027 * 2 / sqrt 3 = 4.968; of 5 in 50 Wilson's is
    3.48 to 21.36%, which is wider above and below.
    """
    found = spread([8.0, 10.0, 12.0], 50)
    assert found.mean == 10.0
    z, p, n = 1.959964, 0.1, 50
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * 0.9 / n + (z / 2 / n) ** 2),
    )
    assert found.low == pytest.approx(100 * (centre - half), abs=1e-3)
    assert found.high == pytest.approx(100 * (centre + half), abs=1e-3)
    alone = spread([8.0, 10.0, 12.0], 0)
    assert (alone.low, alone.high) == pytest.approx((10 - 4.968, 10 + 4.968), abs=1e-3)
    # Seeds that agree by chance are not certain, and nothing leaves [0, 100].
    assert spread([0.0, 0.0, 0.0], 50).high == pytest.approx(7.13, abs=0.01)
    assert spread([0.0, 60.0], 0) == (30.0, 0.0, 100.0)
    assert spread([4.0], 0) == (4.0, 4.0, 4.0)


def test_the_worst_case_is_the_highest_mean_over_seeds_and_names_its_place(folder: Path) -> None:
    worst = {each.method: each for each in worst_cases(lines_of(read_grid(folder).cells))}
    assert (worst["A"].mean, worst["A"].worst, worst["A"].place, worst["A"].highest) == (7.0, 10.0, "mix 20%", 12.0)
    assert worst["B"].worst == 60.0
    assert worst["B"].accuracy == 90.0


def test_the_frontier_holds_what_no_other_beats() -> None:
    points = [(80.0, 7.0), (90.0, 40.0), (79.0, 61.0), (80.0, 9.0), (85.0, 7.0)]
    assert frontier(points) == [(85.0, 7.0), (90.0, 40.0)]


def test_tables_and_page(folder: Path) -> None:
    page = write_report(folder).read_text()
    for anchor in ("frontier", "heat", "ratio"):
        assert f"figure-grid-0-{anchor}" in page
    assert "It &lt;diverged&gt;." in page
    assert "C|<b>" not in page
    assert "12 of 14 cells are measured, 1 failed" in page
    markdown = (folder / "report.md").read_text()
    assert "| B | mix | 20 |  | sst2 | 1 | 60.0 (46–72) | 2.0 |" in markdown
    assert "| 2 |" in next(line for line in markdown.splitlines() if line.startswith("| B | mix | 20"))
    assert "C\\|<b>" in markdown
    rows = list(csv.DictReader(io.StringIO((folder / "cells.csv").read_text())))
    assert len(rows) == len(CELLS)
    assert rows[1]["harmful_score (other)"] == "2"
    assert rows[1]["unparsable_rate (other)"] == "9"
    assert (rows[11]["status"], rows[11]["harmful_score"], rows[11]["error"]) == ("failed", "", "It <diverged>.")


def test_figures_leave_out_what_was_not_measured(folder: Path) -> None:
    lines = lines_of(read_grid(folder).cells)
    drawn = ratio_figure(lines)
    assert drawn is not None
    assert {trace.name: list(trace.y) for trace in drawn.data} == {"A": [4.0, 10.0], "B": [20.0, 60.0]}
    heat = heat_map(lines)
    assert heat is not None
    assert list(heat.data[0].z[2]) == [None, None, 61.0]
    assert ratio_figure([]) is None
    assert heat_map([]) is None


def test_the_terminal_and_what_is_no_result(folder: Path) -> None:
    console = Console(record=True, width=160)
    print_report(folder, console)
    assert "mix 20%" in console.export_text()
    (folder / "results.json").write_text('{"cells": []}')
    with pytest.raises(DataError, match="no results of a comparison"):
        write_report(folder)
