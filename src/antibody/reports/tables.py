"""Tables for the terminal."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from antibody.reports.grid import is_grid, print_grid
from antibody.reports.reading import Comparison, Run, mapping, number, read
from antibody.reports.wording import (
    HEADLINE,
    HEADLINE_NOTE,
    comparison_result,
    decimal,
    headline_cells,
    label,
    mean_weight,
    measures,
    most_suppressed,
    screen_results,
    share,
    suppression_result,
    weight,
)


def print_report(path: Path, console: Console) -> None:
    """Prints a run, or a directory of runs, as tables.

    Raises:
        UsageError: `not_a_run`, when the path is neither.
        DataError: `bad_json`, when `summary.json` or `manifest.json` cannot be read.
    """
    if is_grid(path):
        print_grid(path, console)
        return
    content = read(path)
    if isinstance(content, Comparison):
        console.print(headline_table(content))
        console.print(escape(comparison_result(content)))
        console.print(escape(HEADLINE_NOTE), style="dim")
    else:
        console.print(manifest_table(content))
        console.print(evaluation_table(content))
        console.print(last_metrics_table(content))
        console.print(suppressed_table(content))
        for result in (*screen_results(content), suppression_result(content.audit)):
            if result:
                console.print(escape(result))
    for problem in content.problems:
        console.print(f"Warning: {escape(problem)}", style="yellow")


def headline_table(comparison: Comparison) -> Table:
    """One line a row of `summary.json`."""
    table = _table(f"{comparison.model}, seed {comparison.seed}", *HEADLINE, left={"Model"})
    for row in comparison.rows:
        table.add_row(*(escape(cell) for cell in headline_cells(row)))
    return table


def manifest_table(run: Run) -> Table:
    """What made the run."""
    table = _table(f"Run {run.name}", "Property", "Value", left={"Property", "Value"})
    manifest = run.manifest
    base = mapping(manifest.get("model"))
    # A local folder has no revision.
    made = ", ".join(str(base[name]) for name in ("revision", "dtype") if base.get(name))
    values = {
        "Stage": manifest.get("kind"),
        "Method": manifest.get("method"),
        "Model": f"{run.model} ({made})" if made else run.model,
        "Parent": manifest.get("parent"),
        "Seed": manifest.get("seed"),
        "Steps": manifest.get("steps"),
        "Seconds": decimal(number(manifest, "seconds")),
        "Status": manifest.get("status"),
    }
    for name, source in run.data.items():
        values[f"Data: {name}"] = f"{source.get('path')}, {source.get('rows')} rows"
    for name, value in values.items():
        table.add_row(escape(name), escape("none" if value is None else str(value)))
    return table


def evaluation_table(run: Run) -> Table:
    """Every measure of every evaluation."""
    table = _table("Evaluations", "Evaluation", "Measure", "Value", left={"Evaluation", "Measure"})
    for name, evaluation in run.evaluations.items():
        for measure, value in measures(evaluation) or [("nothing measured", "n/a")]:
            table.add_row(escape(name), measure, value)
    if not run.evaluations:
        table.add_row("none yet", "", "")
    return table


def last_metrics_table(run: Run) -> Table:
    """The last logged step of training."""
    table = _table("Last logged step", "Metric", "Value", left={"Metric"})
    for name in run.metrics[-1] if run.metrics else []:
        table.add_row(escape(name), decimal(number(run.metrics[-1], name)))
    if not run.metrics:
        table.add_row("metrics.jsonl is missing or empty", "")
    return table


def suppressed_table(run: Run, limit: int = 10) -> Table:
    """The rows that counted least, without their text."""
    columns = ("Line", "Id", "Label", "Benign, probably", "Mean weight", "First score")
    table = _table("Most suppressed rows", *columns, left={"Id", "Label"})
    rows = most_suppressed(run.audit, limit)
    for row in rows:
        cells = [str(row.get("line")), str(row.get("id")), label(row)]
        cells += [share(number(row, "benign_probability")), mean_weight(row), weight(number(row, "score_first"))]
        table.add_row(*(escape(cell) for cell in cells))
    if not rows:
        table.add_row("", "no row weights in this run")
    return table


def _table(title: str, *columns: str, left: set[str]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table
