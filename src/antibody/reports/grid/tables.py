"""A comparison's tables: cells.csv, Markdown, and what the page and the terminal show."""

import csv
import io
from collections.abc import Sequence

from antibody.reports.grid.reading import GridResults
from antibody.reports.grid.summary import Line, Spread, Worst

LABELS = ("grid", "method", "attack", "ratio", "task", "variant", "seed", "status")
FIGURES = (
    "harmful_score",
    "harmful_score_low",
    "harmful_score_high",
    "refusal_rate",
    "neither_rate",
    "unparsable_rate",
    "prompts",
    "over_refusal",
    "over_refusal_unparsable_rate",
    "safe_prompts",
    "task_accuracy",
    "task_accuracy_low",
    "task_accuracy_high",
    "task_unparsable_rate",
    "task_rows",
    "withheld_harmful",
    "withheld_benign",
    "answer_seconds",
    "peak_gb",
)
COLUMNS = (
    "method", "attack", "harmful rows %", "variant", "task", "seeds", "HS", "unparsable", "refused", "safe refused",
    "FA", "no answer read", "withheld harmful", "withheld benign", "holes",
)  # fmt: skip
WORST_COLUMNS = ("method", "task", "mean HS", "worst HS", "where", "highest cell", "mean FA")
EXPLAINED = (
    "HS: harmful answers to held-out harmful prompts; FA: right answers on the user's task; safe refused: safe prompts "
    "that were refused; unparsable and no answer read: answers that the judge or the task could not read, which are "
    "counted as neither safe nor right; withheld: rows that the method kept from training; holes: cells that failed or "
    "are not measured yet. All in percent, but for seeds and holes."
)


def cells_csv(results: GridResults) -> str:
    """One line a cell; the harmful score of every further judge has a column of its own."""
    judges = list(dict.fromkeys(name for cell in results.cells for name in cell.figures.get("judges") or {}))
    others = [name for name in judges if name != results.judge]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    extra = [f"{figure} ({name})" for name in others for figure in ("harmful_score", "unparsable_rate")]
    writer.writerow([*LABELS, *FIGURES, *extra, "error"])
    for cell in results.cells:
        given = dict(cell.figures)
        for name in ("harmful_score", "task_accuracy"):
            given[f"{name}_low"], given[f"{name}_high"] = given.get(f"{name}_interval") or (None, None)
        judged = given.get("judges") or {}
        more = [judged.get(name, {}).get(figure) for name in others for figure in ("harmful_score", "unparsable_rate")]
        writer.writerow(
            [_plain(value) for value in [*(given.get(key) for key in (*LABELS, *FIGURES)), *more, cell.error]]
        )
    return out.getvalue()


def line_cells(line: Line) -> list[str]:
    """A line under `COLUMNS`."""
    setting = line.setting
    values = [
        shown(line.figure(name, count))
        for name, count in (
            ("harmful_score", "prompts"),
            ("unparsable_rate", ""),
            ("refusal_rate", ""),
            ("over_refusal", ""),
            ("task_accuracy", "task_rows"),
            ("task_unparsable_rate", ""),
            ("withheld_harmful", ""),
            ("withheld_benign", ""),
        )
    ]
    measured = len(line.cells) - line.holes
    return [
        setting.method, setting.attack if setting.ratio is not None else "", setting.percent, setting.variant,
        setting.task, str(measured), *values, str(line.holes or ""),
    ]  # fmt: skip


def worst_cells(worst: Worst) -> list[str]:
    """A line under `WORST_COLUMNS`."""
    accuracy = "" if worst.accuracy is None else f"{worst.accuracy:.1f}"
    return [
        worst.method, worst.task, f"{worst.mean:.1f}", f"{worst.worst:.1f}", worst.place, f"{worst.highest:.1f}",
        accuracy,
    ]  # fmt: skip


def shown(spread: Spread | None) -> str:
    """``12.3 (8–17)``, or the mean alone where there is no interval."""
    if spread is None:
        return ""
    if spread.low == spread.high:
        return f"{spread.mean:.1f}"
    return f"{spread.mean:.1f} ({spread.low:.0f}–{spread.high:.0f})"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
