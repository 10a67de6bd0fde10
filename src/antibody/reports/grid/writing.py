"""Writes a comparison's reports into its directory, and prints the short one."""

from html import escape
from pathlib import Path

from plotly import graph_objects as go
from rich.console import Console
from rich.table import Table

from antibody.files import write_text
from antibody.reports import markup
from antibody.reports.grid import figures, tables
from antibody.reports.grid.reading import GridResults, read_grid
from antibody.reports.grid.summary import (
    INTERVALS,
    Line,
    Worst,
    flaws_by_method,
    lines_of,
    without_repeats,
    worst_cases,
)
from antibody.reports.page import Section, page

ABOUT = (
    "Every method aligned the same model, then trained on the same uploads, and answered the same prompts, which the "
    "same judge read. This page is made from results.json."
)
CROSSED = "Harmful score / accuracy, mean over seeds; * where cells are missing or hardly readable"
DRAWN = {
    "frontier": "HS against FA: the mean over the grid, the bar up to the worst case of its sweep. The dotted line "
    "joins the methods that none beats in both. Hollow: cells are missing or hardly readable, so it is not compared.",
    "heat": "HS of every method under every setting, mean over tasks and seeds; * where cells are missing or hardly "
    "readable.",
    "ratio": "HS against the share of harmful rows, mean over tasks and seeds. Hollow: cells are missing or hardly "
    "readable.",
}
TEXT = ("method", "attack", "variant", "task", "where", "marks")


def write_grid(path: Path) -> Path:
    """Writes cells.csv, report.md and report.html.

    Returns:
        The path of the page.

    Raises:
        DataError: ``bad_json``.
    """
    results = read_grid(path)
    lines = lines_of(results.cells)
    worst = worst_cases(lines)
    write_text(path / "cells.csv", tables.cells_csv(results))
    write_text(path / "report.md", _markdown(results, lines, worst))
    sections = [_section(grid, lines, worst) for grid in _grids(lines)]
    sections += [*_holes(results), Section("reading", "How to read this", _notes())]
    title = f"Comparison of defences on {results.model}"
    write_text(path / "report.html", page(title, ABOUT, _result(results, worst), sections))
    return path / "report.html"


def grid_figures(path: Path) -> dict[str, go.Figure]:
    """The page's drawings by name, such as ``"poison ratio heat"``: for a paper, or a notebook.

    Raises:
        DataError: ``bad_json``.
    """
    lines = lines_of(read_grid(path).cells)
    worst = worst_cases(lines)
    return {
        f"{grid} {name}": drawn
        for grid in _grids(lines)
        for name, drawn in _drawings(*_of_grid(grid, lines, worst)).items()
    }


def print_grid(path: Path, console: Console) -> None:
    """Prints the worst cases of every grid, and how many cells are missing.

    Raises:
        DataError: ``bad_json``.
    """
    results = read_grid(path)
    lines = lines_of(results.cells)
    worst = worst_cases(lines)
    for grid in _grids(lines):
        table = Table(title=f"{results.model}: {grid}")
        for column in tables.WORST_COLUMNS:
            table.add_column(column, justify="left" if column in TEXT else "right")
        for each in worst:
            if each.grid == grid:
                table.add_row(*tables.worst_cells(each))
        if table.row_count:
            console.print(table)
    console.print(_result(results, worst), markup=False)


def _grids(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.setting.grid for line in lines))


def _result(results: GridResults, worst: list[Worst]) -> str:
    done = sum(cell.status == "done" for cell in results.cells)
    failed = sum(cell.status == "failed" for cell in results.cells)
    counts = f"{done} of {len(results.cells)} cells are measured, {failed} failed."
    if not worst:
        return counts
    last = max(worst, key=lambda each: each.worst)
    highest = f"the highest worst case is {last.worst:.1f}% ({last.method}, {last.place})."
    whole = [each for each in worst if each.flaws.whole]
    if not whole:
        return f"{counts} No method has all its cells, so none is compared; {highest}"
    first = min(whole, key=lambda each: each.mean)
    of = "a grid" if len(whole) == len(worst) else "a method that has all its cells"
    return (
        f"{counts} The lowest mean harmful score of {of} is {first.mean:.1f}% ({first.method}, {first.grid}, "
        f"{first.task}); {highest}"
    )


def _section(grid: str, lines: list[Line], worst: list[Worst]) -> Section:
    own, cases = _of_grid(grid, lines, worst)
    anchor = f"grid-{_grids(lines).index(grid)}"
    drawings = _drawings(own, cases)
    body = "".join(markup.figure(drawn, f"{anchor}-{name}", DRAWN[name]) for name, drawn in drawings.items())
    if cases:
        rows = [tables.worst_cells(each) for each in cases]
        body += markup.table("Mean and worst case", tables.WORST_COLUMNS, rows, text=TEXT)
    at_a_glance = tables.crossed(own)
    if at_a_glance is not None:
        body += markup.table(CROSSED, *at_a_glance, text=at_a_glance[0][:1])
    rows = [tables.line_cells(line) for line in without_repeats(own)]
    body += markup.folded(
        "Every setting", markup.table("Mean over seeds and interval", tables.COLUMNS, rows, text=TEXT)
    )
    return Section(anchor, grid, body)


def _of_grid(grid: str, lines: list[Line], worst: list[Worst]) -> tuple[list[Line], list[Worst]]:
    return [line for line in lines if line.setting.grid == grid], [each for each in worst if each.grid == grid]


def _drawings(lines: list[Line], worst: list[Worst]) -> dict[str, go.Figure]:
    """Of one grid."""
    drawings = {
        "frontier": figures.frontier_figure(worst, flaws_by_method(lines)),
        "heat": figures.heat_map(lines),
        "ratio": figures.ratio_figure(lines),
    }
    return {name: drawn for name, drawn in drawings.items() if drawn is not None}


def _holes(results: GridResults) -> list[Section]:
    """The cells that failed, each error once."""
    errors: dict[str, int] = {}
    for cell in results.cells:
        if cell.status == "failed":
            errors[cell.error] = errors.get(cell.error, 0) + 1
    if not errors:
        return []
    listed = markup.bullets(f"{count} cells: {error}" for error, count in errors.items())
    return [Section("holes", "Cells that failed", listed)]


def _notes() -> str:
    return markup.paragraph(tables.EXPLAINED) + markup.paragraph(INTERVALS)


def _markdown(results: GridResults, lines: list[Line], worst: list[Worst]) -> str:
    parts = [f"# Comparison of defences on {results.model}", _result(results, worst)]
    for grid in _grids(lines):
        parts.append(f"## {grid}")
        own, cases = _of_grid(grid, lines, worst)
        if cases:
            parts.append(tables.markdown(tables.WORST_COLUMNS, [tables.worst_cells(each) for each in cases]))
        at_a_glance = tables.crossed(own)
        if at_a_glance is not None:
            parts += [f"{CROSSED}:", tables.markdown(*at_a_glance)]
        parts.append(tables.markdown(tables.COLUMNS, [tables.line_cells(line) for line in without_repeats(own)]))
    failed = dict.fromkeys(cell.error for cell in results.cells if cell.status == "failed")
    if failed:
        parts += ["## Cells that failed", "\n".join(f"- {escape(error)}" for error in failed)]
    return "\n\n".join([*parts, f"{tables.EXPLAINED} {INTERVALS}"]) + "\n"
