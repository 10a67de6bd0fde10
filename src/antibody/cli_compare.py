"""`antibody compare`: defences against each other, from one file."""

import datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from antibody.errors import UsageError
from antibody.files import to_json

Flag = Parameter(negative="")


def compare(
    config: Path,
    *,
    output: Path,
    data: Path | None = None,
    keep_runs: Annotated[bool, Flag] = False,
    dry_run: Annotated[bool, Flag] = False,
    probe: Annotated[bool, Flag] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output.", negative="")] = False,
) -> None:
    """Compare defences: alignments x fine-tunings x attacks x poison ratios x tasks x seeds. Begun again, it goes on.

    Processes of one machine that are given the same output share the work: start one a core or a GPU.

    Args:
        config: The YAML file, see docs/compare.md.
        output: Where cells, tables and figures go.
        data: The folder that the file's rows are in; default: the file's own.
        keep_runs: Keep every fine-tuned model, instead of its answers alone.
        dry_run: Print what there is to do, and how long it will take by what is done already.
        probe: With --dry-run, time a few steps of every method on this machine first.
        json: Print one JSON object on standard output.
    """
    from antibody.benchmarks.compare.estimate import dry_run as estimate
    from antibody.benchmarks.compare.run import compare as run_comparison
    from antibody.benchmarks.compare.run import open_comparison
    from antibody.reports import print_report

    if probe and not dry_run:
        raise UsageError("--probe times what --dry-run estimates by.", hint="Add --dry-run.", code="conflict")
    if dry_run:
        found = estimate(open_comparison(config, output, data), probe=probe)
        if json:
            print(to_json(found))
        else:
            _print_plan(found)
        return
    results = run_comparison(config, output, data=data, keep_runs=keep_runs)
    if json:
        print(to_json(results))
        return
    print_report(output, Console())
    names = ("results.json", "cells.csv", "report.md", "report.html")
    Console(stderr=True).print(f"Written: {', '.join(str(output / name) for name in names)}")


def _print_plan(found: dict[str, Any]) -> None:
    table = Table("To do", "All", "Done")
    for name in ("alignments", "calibrations", "finetunings", "evaluations", "cells"):
        table.add_row(name, str(found[name]["all"]), str(found[name]["done"]))
    console = Console()
    console.print(table)
    seconds = found["seconds"]
    left = "unknown" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
    peak = "unknown" if found["peak_gb"] is None else f"{found['peak_gb']:.1f} GB"
    console.print(f"Time left, in one process: {left}. Most memory: {peak}. Measured by {found['measured_by']}.")
    if found["unknown"]:
        console.print(found["unknown"])
