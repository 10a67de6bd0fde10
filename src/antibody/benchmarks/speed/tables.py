"""What `antibody speed` found, as tables for the terminal and for a page."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]

NOTE = (
    "Seconds are medians of interleaved steps, optimiser included. The floor is the arithmetic that the step needs, "
    "what rows share counted once, over the matmul rate measured beside it."
)


# Left out of a terminal that is too narrow for all.
SPARE = {"min-max", "tokens/s", "MB x trl"}
WIDE = 120


class Sheet(NamedTuple):
    """A table before it is drawn. The first ``labels`` columns hold words."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    labels: int


def sheets(result: Row) -> list[Sheet]:
    """The tables of a result, those that were measured."""
    stages = dict.fromkeys(case["stage"] for case in result["cases"])
    made = [_stage(result, stage) for stage in stages]
    if "scaling" in result:
        made.append(_scaling(result["scaling"]))
    if "end_to_end" in result:
        made.append(_end_to_end(result["end_to_end"]))
    return made


def print_speed(result: Row, console: Console) -> None:
    """Prints all tables."""
    for sheet in sheets(result):
        table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD)
        shown = [i for i, column in enumerate(sheet.columns) if console.width >= WIDE or column not in SPARE]
        for index in shown:
            table.add_column(sheet.columns[index], justify="left" if index < sheet.labels else "right", overflow="fold")
        for row in sheet.rows:
            table.add_row(*(row[index] for index in shown))
        console.print(table)
    console.print(NOTE, style="dim")


def markdown(result: Row) -> str:
    """All tables for a page."""
    parts = []
    for sheet in sheets(result):
        lines = [sheet.columns, tuple("---" if i < sheet.labels else "---:" for i in range(len(sheet.columns)))]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *sheet.rows])
        parts.append(f"{sheet.title}\n\n{table}\n")
    return "\n".join([*parts, NOTE + "\n"])


def _stage(result: Row, stage: str) -> Sheet:
    title = (
        f"{stage}: {result['model']}, {result['dtype']} on {result['device']} ({result['device_name']}), "
        f"{result['threads']} threads, batch {result['batch_size']}"
    )
    columns = ("rows", "trainer", "s/step", "min-max", "tokens/s", "x trl", "x hf", "x textbook", "x floor", "peak MB",
               "MB x trl")  # fmt: skip
    rows = [
        (
            case["rows"],
            case["contender"],
            _number(case["seconds"], 3),
            f"{_number(case['seconds_min'], 3)}-{_number(case['seconds_max'], 3)}",
            _number(case["tokens_per_second"], 0),
            *(_number(case[f"seconds_over_{other}"], 2) for other in ("trl", "hf_trainer", "textbook")),
            _number(case["seconds"] / case["floor_seconds"], 1),
            _number(case["peak_mb"], 0),
            _number(case["peak_over_trl"], 2),
        )
        for case in result["cases"]
        if case["stage"] == stage
    ]
    return Sheet(title, columns, rows, labels=2)


def _scaling(cases: Sequence[Row]) -> Sheet:
    columns = ("axis", "rows", "batch", "micro-batch", "parameters", "s/step", "tokens/step", "tokens/s", "peak MB")
    rows = [
        (
            case["axis"],
            case["rows"],
            str(case["batch_size"]),
            str(case["micro_batch_size"] or "whole"),
            str(case["trainable_parameters"]),
            _number(case["seconds"], 3),
            _number(case["tokens_per_step"], 0),
            _number(case["tokens_per_second"], 0),
            _number(case["peak_mb"], 0),
        )
        for case in cases
    ]
    return Sheet("How Antibody's cost grows", columns, rows, labels=2)


def _end_to_end(cases: Sequence[Row]) -> Sheet:
    columns = ("rows", "steps", "TRL script s", "antibody finetune s", "ratio")
    rows = [
        (
            case["rows"],
            str(case["steps"]),
            _number(case["trl_seconds"], 1),
            _number(case["antibody_seconds"], 1),
            _number(case["ratio"], 2),
        )
        for case in cases
    ]
    return Sheet("Whole processes, start-up and saving included", columns, rows, labels=1)


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
