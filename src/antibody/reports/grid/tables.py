"""A comparison's tables: cells.csv, Markdown, and what the page and the terminal show."""

import csv
import io
from collections.abc import Sequence

from antibody.reports.grid.reading import MOST_UNREADABLE, GridResults
from antibody.reports.grid.summary import Line, Spread, Worst

LABELS = ("grid", "method", "attack", "ratio", "task", "variant", "seed", "status")
FIGURES = (
    "harmful_score",
    "harmful_score_low",
    "harmful_score_high",
    "harmful_score_readable",
    "refusal_rate",
    "neither_rate",
    "unparsable_rate",
    "prompts",
    "over_refusal",
    "over_refusal_readable",
    "over_refusal_unparsable_rate",
    "safe_prompts",
    "task_accuracy",
    "task_accuracy_low",
    "task_accuracy_high",
    "task_unparsable_rate",
    "task_unjudged_rate",
    "task_rows",
    "ability",
    "withheld_harmful",
    "withheld_harmful_rows",
    "withheld_benign",
    "withheld_benign_rows",
    "answer_seconds",
    "peak_gb",
    "finetune_peak_gb",
    "device",
    "finetune_device",
)
COLUMNS = (
    "method", "attack", "harmful rows %", "variant", "task", "seeds", "HS", "unparsable", "refused", "safe refused",
    "FA", "no answer read", "ability", "withheld harmful", "withheld benign", "marks",
)  # fmt: skip
WORST_COLUMNS = ("method", "task", "mean HS", "worst HS", "where", "highest cell", "mean FA", "marks")
EXPLAINED = (
    "HS: harmful answers to held-out harmful prompts; refused: answers to them that refuse; safe refused: safe prompts "
    "that were refused; these three are of the answers that the judge could read. FA: right answers on the user's "
    "task; unparsable and no answer read: answers that the judge or the task could not read, of all; ability: mean of "
    "the general abilities, where any were asked for; withheld: rows that the method kept from training. All in "
    "percent, but for seeds. Marks: cells that failed or are not measured yet are missing, and cells of which more "
    f"than {MOST_UNREADABLE:g}% of the answers could not be read are hardly readable. What is marked is a mean over "
    "the rest: it is not compared with others, and the frontier leaves it out."
)


def cells_csv(results: GridResults) -> str:
    """One line a cell; the harmful score of every further judge has a column of its own."""
    judges = list(dict.fromkeys(name for cell in results.cells for name in cell.figures.get("judges") or {}))
    others = [name for name in judges if name != results.judge]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    extra = [f"{figure} ({name})" for name in others for figure in ("harmful_score", "unparsable_rate")]
    abilities = list(dict.fromkeys(name for cell in results.cells for name in cell.figures.get("abilities") or {}))
    extra += [f"ability ({name})" for name in abilities]
    writer.writerow([*LABELS, *FIGURES, *extra, "error"])
    for cell in results.cells:
        given = dict(cell.figures)
        for name in ("harmful_score", "task_accuracy"):
            given[f"{name}_low"], given[f"{name}_high"] = given.get(f"{name}_interval") or (None, None)
        for name in ("harmful_score", "over_refusal"):
            given[f"{name}_readable"] = cell.readable(name)
        judged = given.get("judges") or {}
        more = [judged.get(name, {}).get(figure) for name in others for figure in ("harmful_score", "unparsable_rate")]
        more += [(given.get("abilities") or {}).get(name) for name in abilities]
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
            ("harmful_score", ""),
            ("unparsable_rate", "prompts"),
            ("refusal_rate", ""),
            ("over_refusal", ""),
            ("task_accuracy", "task_rows"),
            ("task_unparsable_rate", "task_rows"),
            ("ability", "ability_rows"),
            ("withheld_harmful", "withheld_harmful_rows"),
            ("withheld_benign", "withheld_benign_rows"),
        )
    ]
    measured = line.flaws.cells - line.flaws.missing
    return [
        setting.method, setting.attack if setting.ratio is not None else "", setting.percent, setting.variant,
        setting.task, str(measured), *values, line.flaws.text,
    ]  # fmt: skip


def worst_cells(worst: Worst) -> list[str]:
    """A line under `WORST_COLUMNS`."""
    accuracy = "" if worst.accuracy is None else f"{worst.accuracy:.1f}"
    return [
        worst.method, worst.task, f"{worst.mean:.1f}", f"{worst.worst:.1f}", worst.place, f"{worst.highest:.1f}",
        accuracy, worst.flaws.text,
    ]  # fmt: skip


def crossed(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]] | None:
    """One grid at a glance: every method under every setting, ``HS / FA``, with a * where cells have flaws. The longer
    of the two goes down.

    Returns:
        The columns and the rows; None where there is one setting alone.
    """
    found = {(_name(line), line.setting.what): _both(line) for line in lines}
    names, settings = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    if len(settings) < 2:
        return None
    if len(settings) <= len(names):
        return ["HS / FA", *settings], [[name, *(found.get((name, what), "") for what in settings)] for name in names]
    return ["HS / FA", *names], [[what, *(found.get((name, what), "") for name in names)] for what in settings]


def _name(line: Line) -> str:
    return f"{line.setting.method}, {line.setting.task}"


def _both(line: Line) -> str:
    found = (line.figure("harmful_score"), line.figure("task_accuracy"))
    if found == (None, None):
        return ""
    values = " / ".join("" if spread is None else f"{spread.mean:.1f}" for spread in found)
    return values if line.flaws.whole else f"{values} *"


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
