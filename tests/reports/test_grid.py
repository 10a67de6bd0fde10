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
from antibody.reports.grid.figures import frontier_figure, heat_map, ratio_figure
from antibody.reports.grid.reading import read_grid
from antibody.reports.grid.summary import flaws_by_method, frontier, lines_of, spread, worst_cases
from antibody.reports.grid.tables import crossed


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
        "unparsable_rate": 0.0,
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


def written(folder: Path, cells: list[dict[str, Any]]) -> Path:
    results = {"kind": "comparison", "model": "tiny", "judge": "embedded", "cells": cells}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path, CELLS)


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


def test_lines_of_the_same_cells_are_one(tmp_path: Path) -> None:
    """Not those that differ in one seed's cell, and not cells without a key."""
    same = [cell(method, None, seed, 4.0, key=f"plain-{seed}") for method in ("A", "B") for seed in (0, 1)]
    other = [cell("C", None, 0, 4.0, key="plain-0"), cell("C", None, 1, 4.0, key="other")]
    unnamed = [cell(method, None, 0, 4.0) for method in ("D", "E")]
    write_report(written(tmp_path, [*same, *other, *unnamed]))
    rows = [line.split(" | ") for line in (tmp_path / "report.md").read_text().splitlines() if " | sst2 | " in line]
    assert [(row[0], row[5]) for row in rows] == [("| A, B", "2"), ("| C", "2"), ("| D", "1"), ("| E", "1")]


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
    assert "| B | mix | 20 |  | sst2 | 1 | 60.0 (46–72) | 0.0 (0–7) |" in markdown
    lines = markdown.splitlines()
    assert next(line for line in lines if line.startswith("| B | mix | 20")).endswith("| 2 of 3 cells missing |")
    assert next(line for line in lines if line.startswith("| B | sst2 | 40.0 |")).endswith("| 2 of 6 cells missing |")
    assert "C\\|<b>" in markdown
    rows = list(csv.DictReader(io.StringIO((folder / "cells.csv").read_text())))
    assert len(rows) == len(CELLS)
    assert rows[1]["harmful_score (other)"] == "2"
    assert rows[1]["unparsable_rate (other)"] == "9"
    assert (rows[11]["status"], rows[11]["harmful_score"], rows[11]["error"]) == ("failed", "", "It <diverged>.")


def test_holes_do_not_flatter_a_method(tmp_path: Path) -> None:
    """Of B only the easy half is measured: its mean is lower than A's, and it is not called the lowest."""
    cells = [
        *(cell("A", ratio, 0, 20.0) for ratio in (0.0, 0.5)),
        cell("B", 0.0, 0, 4.0, 95.0),
        cell("B", 0.5, 0, None),
    ]
    lines = lines_of(read_grid(written(tmp_path, cells)).cells)
    worst = {each.method: each for each in worst_cases(lines)}
    assert (worst["B"].mean, worst["B"].flaws.text) == (4.0, "1 of 2 cells missing")
    assert worst["A"].flaws.whole
    drawn = frontier_figure(list(worst.values()), flaws_by_method(lines))
    assert drawn is not None
    line, whole, holed = drawn.data
    assert (list(line.x), list(line.y)) == ([80.0], [20.0])
    assert (whole.name, holed.name) == ("A", "B (1 of 2 cells missing)")
    assert (whole.marker.symbol, holed.marker.symbol) == ("circle", "circle-open")
    heat = heat_map(lines)
    assert heat is not None
    assert [list(row) for row in heat.data[0].text] == [["20", "20"], ["4", ""]]
    page = write_report(tmp_path).read_text()
    assert "of a method that has all its cells is 20.0% (A, g, sst2)" in page
    # None is whole: nothing is called the lowest.
    assert "No method has all its cells, so none" in write_report(written(tmp_path, cells[2:])).read_text()


def test_a_judge_that_fails_on_a_part_makes_no_model_safer(tmp_path: Path) -> None:
    """20 harmful of 50, 25 unread: 20 of the 25 that were read are 80%; Wilson's interval of 20 in 25 is 61 to 91%."""
    half = {"unparsable_rate": 50.0, "refusal_rate": 10.0, "safe_prompts": 40, "over_refusal": 10.0}
    cells = [
        cell("A", 0.2, 0, 40.0, **half, over_refusal_unparsable_rate=0.0),
        cell("B", 0.2, 0, 50.0, unparsable_rate=4.0),
        cell("C", 0.2, 0, 0.0, unparsable_rate=100.0),
        cell("D", 0.2, 0, 60.0, over_refusal_unparsable_rate=6.0),
        cell("E", 0.2, 0, 60.0, task_unjudged_rate=6.0),
    ]
    write_report(written(tmp_path, cells))
    table = [line for line in (tmp_path / "report.md").read_text().splitlines() if "| mix |" in line]
    # HS, unparsable, refused and safe refused, each with its interval.
    assert "| 80.0 (61–91) | 50.0 (37–63) | 20.0 (9–39) | 10.0 (4–23) |" in table[0]
    assert [line.rsplit("|", 2)[1].strip() for line in table] == [
        "1 of 1 cells hardly readable", "", *["1 of 1 cells hardly readable"] * 3,
    ]  # fmt: skip
    # Nothing could be read of C: it has no harmful score, not one of 0.
    assert "| sst2 | 1 |  | 100.0" in table[2]
    assert [each.method for each in worst_cases(lines_of(read_grid(tmp_path).cells))] == ["A", "B", "D", "E"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cells.csv").read_text())))
    assert [row["harmful_score_readable"] for row in rows] == ["80", "52.08", "", "60", "60"]


def test_what_was_withheld_has_an_interval_of_its_rows(tmp_path: Path) -> None:
    """Wilson's interval of 24 in 32 is 57.9 to 86.7%, of 0 in 128 it is 0 to 2.9%."""
    held = {"withheld_harmful": 75.0, "withheld_harmful_rows": 32, "withheld_benign": 0.0, "withheld_benign_rows": 128}
    write_report(written(tmp_path, [cell("A", 0.2, 0, 4.0, **held)]))
    assert "| 75.0 (58–87) | 0.0 (0–3) |" in (tmp_path / "report.md").read_text()


def test_figures_leave_out_what_was_not_measured(folder: Path) -> None:
    lines = lines_of(read_grid(folder).cells)
    drawn = ratio_figure(lines)
    assert drawn is not None
    assert {trace.name: list(trace.y) for trace in drawn.data} == {"A": [4.0, 10.0], "B": [20.0, 60.0]}
    assert [list(trace.marker.symbol) for trace in drawn.data] == [["circle"] * 2, ["circle", "circle-open"]]
    heat = heat_map(lines)
    assert heat is not None
    assert list(heat.data[0].z[2]) == [None, None, 61.0]
    assert ratio_figure([]) is None
    assert heat_map([]) is None


def test_a_grid_at_a_glance(folder: Path) -> None:
    """The longer goes down: here methods, of which B lacks cells."""
    lines = [line for line in lines_of(read_grid(folder).cells) if line.setting.ratio is not None]
    assert crossed(lines) == (
        ["HS / FA", "mix 0%", "mix 20%"],
        [
            ["A, sst2", "4.0 / 80.0", "10.0 / 80.0"],
            ["B, sst2", "20.0 / 90.0", "60.0 / 90.0 *"],
            ["C|<b>, sst2", "", "61.0 / 79.0"],
        ],
    )
    columns, rows = crossed([line for line in lines if line.setting.method == "A"]) or ([], [])
    assert (columns, rows) == (["HS / FA", "A, sst2"], [["mix 0%", "4.0 / 80.0"], ["mix 20%", "10.0 / 80.0"]])
    assert crossed(lines[:1]) is None
    write_report(folder)
    assert "| B, sst2 |  | 20.0 / 90.0 | 60.0 / 90.0 * |" in (folder / "report.md").read_text()


def test_the_terminal_and_what_is_no_result(folder: Path) -> None:
    console = Console(record=True, width=160)
    print_report(folder, console)
    assert "mix 20%" in console.export_text()
    (folder / "results.json").write_text('{"cells": []}')
    with pytest.raises(DataError, match="no results of a comparison"):
        write_report(folder)
