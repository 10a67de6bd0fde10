"""`compare`: a configuration in, a directory of cells, tables and figures out; begun again, it goes on."""

import gc
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from antibody.benchmarks.compare.alignment import TakenError, aligned_run, is_free
from antibody.benchmarks.compare.answers import figures
from antibody.benchmarks.compare.checking import read_config
from antibody.benchmarks.compare.config import Comparison
from antibody.benchmarks.compare.finetuning import tuned_run
from antibody.benchmarks.compare.folder import RESULTS_FILE, Folder, is_done, read_json
from antibody.benchmarks.compare.memory import forget_peak, peak_gb
from antibody.benchmarks.compare.plan import Cell, Model, Plan, make_plan
from antibody.benchmarks.compare.rows import Library
from antibody.benchmarks.machine import device_name
from antibody.errors import AntibodyError, MachineError, TrainingError
from antibody.evaluation.abilities import check_abilities
from antibody.evaluation.judges import Judge, make_judge
from antibody.failures import machine_failures
from antibody.files import write_json
from antibody.models.base import BaseModel
from antibody.models.run import load_model
from antibody.progress import bar_line
from antibody.reports.grid import write_grid

logger = logging.getLogger(__name__)

# How often a process that finds nothing to do looks again, in seconds.
PAUSE = 1.0


@dataclass(frozen=True)
class Opened:
    """A comparison that was read and planned."""

    config: Comparison
    plan: Plan
    folder: Folder
    library: Library


def open_comparison(config_file: Path, output: Path, data: Path | None) -> Opened:
    """Reads the file and plans, without writing anything.

    Raises:
        UsageError: Names the file, the line and the field.
    """
    document, config = read_config(config_file)
    # Runs keep the path of the run they come from.
    folder = Folder(output.resolve())
    library = Library(document, config.rows, data if data is not None else config_file.parent, folder.data)
    return Opened(config, make_plan(document, config, library), folder, library)


def compare(config_file: Path, output: Path, *, data: Path | None = None, keep_runs: bool = False) -> dict[str, Any]:
    """Measures every cell that is not measured yet and writes results.json, cells.csv, report.md and report.html.

    A cell that fails is written down with its error and tried again next time. Cells whose settings and data are as
    they were are not measured again, whatever else the file has become. Any number of processes may do this at once
    with one output: each takes what none of the others is at.

    Args:
        config_file: See `antibody.benchmarks.compare.config`.
        output: The directory; gone on with if it is a comparison's.
        data: Where relative paths of rows start; default: the configuration's folder.
        keep_runs: Keep fine-tuned models.

    Returns:
        What results.json holds.

    Raises:
        UsageError: The configuration or the directory cannot be used.
        ModelError: A judge's model cannot be used.
        MachineError: The disk is full or broken.
        TrainingError: ``cells_failed``, at the end, where there are such.
    """
    opened = open_comparison(config_file, output, data)
    # A judge or an ability that cannot be used is known before anything is trained.
    judges = {name: make_judge(name) for name in opened.config.evaluate.judges}
    asked = opened.config.evaluate.abilities
    if asked is not None:
        check_abilities(asked.tasks, opened.library.folder(asked.folder) if asked.folder is not None else None)
    opened.folder.claim(config_file.read_text(encoding="utf-8"))
    folder, plan = opened.folder, opened.plan
    cells = list({cell.key: cell for model in plan.models.values() for cell in plan.cells_of(model)}.values())
    total, before = len(cells), sum(is_done(folder, cell.key) for cell in cells)
    console = Console(stderr=True)
    if folder.published:
        console.print(_counted_published(opened, cells))

    def measured(model: Model) -> bool:
        todo = [cell for cell in plan.cells_of(model) if not folder.is_settled(cell.key)]
        if todo:
            done = sum(is_done(folder, cell.key) for cell in cells)
            left = (time.time() - folder.begun_at) / (done - before) * (total - done) if done > before else None
            console.print(bar_line(done, total, left), escape(_label(todo)))
            try:
                _measure(model, todo, opened, judges, keep_runs=keep_runs)
            except TakenError:
                console.print("put back: another process is at its alignment")
                return False
            _free_memory()
        return True

    try:
        _share(list(plan.models.values()), folder, measured)
    finally:
        # Also what an interrupted comparison has.
        results = write_results(opened)
    holes = [cell for cell in cells if not is_done(folder, cell.key)]
    console.print(bar_line(total - len(holes), total, None), "done")
    if holes:
        first = (read_json(opened.folder.cell(holes[0].key)) or {}).get("error", {})
        raise TrainingError(
            f"{len(holes)} of {total} cells failed; the first, {_label(holes[:1])}: {first.get('message')}",
            hint=f"{opened.folder.path / RESULTS_FILE} has every error. The same command tries them again.",
            code="cells_failed",
        )
    return results


def write_results(opened: Opened) -> dict[str, Any]:
    """Writes results.json with every cell of the plan, measured or not, and the reports made of it."""
    cells = []
    for cell in opened.plan.cells:
        found = opened.folder.found(cell.key) or {}
        status = "missing" if not found else "failed" if "error" in found else "done"
        made = read_json(opened.folder.model(cell.model.key)) or {} if found else {}
        withheld = {key: value for key, value in made.items() if key.startswith("withheld")}
        trained = {f"finetune_{name}": made[name] for name in ("peak_gb", "device") if name in made}
        own = {**cell.labels, "key": cell.key, "status": status}
        # What was published of a cell has the labels that it had there.
        cells.append(own | found | withheld | trained | own)
    results = {
        "kind": "comparison",
        "model": opened.config.model,
        "judge": opened.config.evaluate.judges[0],
        "rows": opened.library.asked,
        "cells": cells,
    }
    write_json(opened.folder.path / RESULTS_FILE, results)
    write_grid(opened.folder.path)
    return results


def _counted_published(opened: Opened, cells: list[Cell]) -> str:
    """How far a results.json of somebody else's goes, and why no further."""
    published = opened.folder.published
    used = sum(cell.key in opened.folder.published_cells for cell in cells)
    theirs = published.get("rows", {})
    others = [name for name, found in opened.library.asked.items() if found != theirs.get(name)]
    return f"published: {used} of {len(cells)} cells count" + (f"; other rows: {', '.join(others)}" if others else "")


def _share(left: list[Model], folder: Folder, measured: Callable[[Model], bool]) -> None:
    """Every model once, held meanwhile: the first of those that no other process holds, until none is left.

    Args:
        left: The models; emptied.
        folder: With their locks.
        measured: Measures a model and says whether that is done. It is not where another process has just begun its
            alignment.
    """
    while left:
        for model in left:
            with folder.held(model.key) as ours:
                if ours and is_free(model.aligned, folder) and measured(model):
                    left.remove(model)
                    break
        else:
            time.sleep(PAUSE)


def _measure(
    model: Model,
    cells: list[Cell],
    opened: Opened,
    judges: Mapping[str, Judge],
    *,
    keep_runs: bool,
) -> None:
    """Every cell of one model; a hole where one fails.

    Raises:
        TakenError: Another process is at its alignment.
    """
    folder = opened.folder

    @cache
    def load() -> BaseModel:
        evaluated = opened.config.evaluate
        name = _made(model, opened)
        # What training took is written with the model; the cell's is what answering takes.
        _free_memory()
        forget_peak()
        return load_model(name, dtype=evaluated.dtype, device=evaluated.device)

    for cell in cells:
        forget_peak()
        try:
            with machine_failures():
                found = figures(cell, load, judges, opened.config, folder, opened.library)
            # Kept answers may be another machine's.
            device = {"device": device_name(load().model.device)} if load.cache_info().currsize else {}
            write_json(folder.cell(cell.key), found | {"peak_gb": peak_gb()} | device)
        except TakenError:
            raise
        except MachineError as error:
            # Without a disk no hole can be marked either.
            if error.code != "out_of_memory":
                raise
            _mark(folder, cell, error)
        except Exception as error:  # noqa: BLE001 - one cell's error is that cell's result
            _mark(folder, cell, error)
    if model.finetune and not keep_runs and all(is_done(folder, cell.key) for cell in cells):
        shutil.rmtree(folder.tuned(model.key), ignore_errors=True)
        (folder.data / f"upload-{model.key}.jsonl").unlink(missing_ok=True)


def _free_memory() -> None:
    """A trainer is a cycle of references, which would hold its model until Python next looks for such."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _made(model: Model, opened: Opened) -> str:
    """The name or run of a model."""
    if not model.aligned:
        return opened.config.model
    aligned = aligned_run(model.aligned, opened.config.model, opened.folder, opened.library)
    if not model.finetune:
        return str(aligned)
    return str(tuned_run(model, aligned, opened.config, opened.folder, opened.library))


def _mark(folder: Folder, cell: Cell, error: Exception) -> None:
    if isinstance(error, AntibodyError):
        described = error.to_json()["error"]
    else:
        described = {
            "code": "unexpected",
            "message": f"{type(error).__name__}: {error}",
            "hint": "This is a fault of ours.",
        }
        described["traceback"] = "".join(traceback.format_exception(error))
    logger.warning("%s: %s", _label([cell]), error)
    write_json(folder.cell(cell.key), {"error": described})


def _label(cells: list[Cell]) -> str:
    labels = cells[0].labels
    ratio = "" if labels["ratio"] is None else f", {100 * labels['ratio']:g}% harmful"
    variant = f", {labels['variant']}" if labels["variant"] else ""
    tasks = ", ".join(dict.fromkeys(cell.task for cell in cells))
    return f"{labels['method']}: {labels['attack']}{ratio}{variant}, {tasks}, seed {labels['seed']}"
