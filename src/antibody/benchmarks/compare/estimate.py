"""How long what is left of a comparison will take, from what is done already or from a probe of a few steps."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.alignment import calibrate_copy, named_files
from antibody.benchmarks.compare.answers import is_answered
from antibody.benchmarks.compare.checking import (
    ROWS_OF_ALIGNMENT,
    ROWS_OF_FINETUNING,
    alignment_settings,
    all_settings,
    finetuning_settings,
)
from antibody.benchmarks.compare.config import Settings
from antibody.benchmarks.compare.folder import Folder, is_done, read_json
from antibody.benchmarks.compare.memory import forget_peak, peak_gb
from antibody.benchmarks.compare.plan import Model, Stage
from antibody.benchmarks.compare.rows import Library
from antibody.benchmarks.compare.run import Opened
from antibody.data.writing import write_records
from antibody.errors import ModelError
from antibody.evaluation.generation import generate
from antibody.evaluation.tasks import make_task
from antibody.models.run import Run, load_model
from antibody.training.stages import align, finetune

# Rows answered by a probe.
PROBED_PROMPTS = 8


@dataclass
class Rates:
    """Seconds of each kind of work.

    Attributes:
        source: How they were found, for people.
        align: Of a row, by method.
        finetune: Of a row, by method.
        calibrate: Of one calibration of a screen; None where none was timed.
        answers: Of one cell's answers, by task.
        peak_gb: The most memory seen, 10^9 bytes; None where nothing was run.
        align_fixed: Of an alignment of any length, such as loading and the screen; 0 where it is in the rows' rate.
        finetune_fixed: Of a fine-tuning of any length, likewise.
    """

    source: str
    align: dict[str, float] = field(default_factory=dict)
    finetune: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    calibrate: float | None = None
    peak_gb: float | None = None
    align_fixed: float = 0.0
    finetune_fixed: float = 0.0


def dry_run(opened: Opened, *, probe: bool) -> dict[str, Any]:
    """The plan in numbers, and what is left of it in hours and gigabytes.

    Args:
        opened: The comparison.
        probe: Load the model and time a few steps of each kind. Otherwise only finished work is looked at.

    Returns:
        ``alignments``, ``calibrations``, ``finetunings``, ``evaluations`` and ``cells``, each as ``{"all", "done"}``;
        ``seconds`` and ``peak_gb``, None where unknown; ``measured_by`` and ``unknown``, in words.
    """
    plan, folder = opened.plan, opened.folder
    stages = [stage for stage in plan.stages.values() if not stage.calibrates]
    calibrations = [stage for stage in plan.stages.values() if stage.calibrates]
    tuned = [model for model in plan.models.values() if model.finetune]
    cells = list({cell.key: cell for cell in plan.cells}.values())
    open_cells = [
        cell
        for cell in cells
        if not (is_done(folder, cell.key) or is_answered(cell, opened.config, folder, opened.library))
    ]
    # No model is made that has given all of its answers.
    asked = list({cell.model.key: cell.model for cell in open_cells}.values())
    needed = {stage.key for model in asked for stage in model.aligned}
    missing = [key for key in needed if not Run(folder.aligned(key)).complete]
    open_stages = [stage for stage in stages if stage.key in missing]
    open_calibrations = [stage for stage in calibrations if stage.key in missing]
    open_models = [model for model in asked if model.finetune]
    rates = _probed(opened, open_stages, open_calibrations, open_models) if probe and asked else _seen(opened)
    parts = [
        _cost(rates.align, _aligned_rows(stage, opened), str(stage.settings["method"]), rates.align_fixed)
        for stage in open_stages
    ]
    parts += [
        _cost(rates.finetune, _tuned_rows(model, opened), str(model.finetune["method"]), rates.finetune_fixed)
        for model in open_models
    ]
    parts += [rates.calibrate for _ in open_calibrations]
    parts += [_cost(rates.answers, 1, cell.task) for cell in open_cells]
    known = [part for part in parts if part is not None]
    return {
        "alignments": {"all": len(stages), "done": len(stages) - len(open_stages)},
        "calibrations": {"all": len(calibrations), "done": len(calibrations) - len(open_calibrations)},
        "finetunings": {"all": len(tuned), "done": len(tuned) - len(open_models)},
        "evaluations": {"all": len(plan.models), "done": len(plan.models) - len(asked)},
        "cells": {"all": len(cells), "done": sum(is_done(folder, cell.key) for cell in cells)},
        "seconds": round(sum(known), 1) if known or not parts else None,
        "peak_gb": rates.peak_gb,
        "measured_by": rates.source,
        "unknown": " ".join(filter(None, (_left_out(parts), _abilities_left_out(opened)))),
    }  # fmt: skip


def _left_out(parts: Sequence[float | None]) -> str:
    """Says how much is not in an estimate; nothing where there is none."""
    unknown = sum(part is None for part in parts)
    if unknown in (0, len(parts)):
        return ""
    return (
        f"{unknown} of {len(parts)} pieces of work are not in it: nothing like them was timed, or their length is that "
        "of rows which are not read yet."
    )


def _abilities_left_out(opened: Opened) -> str:
    return "General abilities are not in it." if opened.config.evaluate.abilities else ""


def _cost(rates: Mapping[str, float], amount: float | None, name: str, fixed: float = 0.0) -> float | None:
    """Of a kind that was not timed: as the others' mean."""
    if amount is None or not rates:
        return None
    return fixed + amount * rates.get(name, mean(rates.values()))


def _seen(opened: Opened) -> Rates:
    """From the directory's own files."""
    align: dict[str, list[float]] = {}
    finetune: dict[str, list[float]] = {}
    answers: dict[str, list[float]] = {}
    calibrations, peaks = [], []
    for stage in opened.plan.stages.values():
        made_of = read_json(opened.folder.model(stage.key))
        if made_of is not None:
            peaks.append(made_of["peak_gb"])
            calibrations += [made_of["seconds"]] if stage.calibrates else []
        if not stage.calibrates and Run(opened.folder.aligned(stage.key)).complete:
            made = Run(opened.folder.aligned(stage.key)).manifest()
            rows = made["steps"] * made["settings"]["batch_size"]
            align.setdefault(made["method"], []).append(made["seconds"] / rows)
    for model in opened.plan.models.values():
        trained, rows_trained = read_json(opened.folder.model(model.key)), _tuned_rows(model, opened)
        if trained is not None:
            peaks.append(trained["peak_gb"])
        if trained is not None and rows_trained:
            finetune.setdefault(str(model.finetune["method"]), []).append(trained["seconds"] / rows_trained)
    for cell in opened.plan.cells:
        found = read_json(opened.folder.cell(cell.key))
        if found is not None and "error" not in found:
            answers.setdefault(cell.task, []).append(found["answer_seconds"])
            peaks.append(found["peak_gb"])
    if not (align or answers):
        return Rates("nothing: no cell is measured here yet; --probe times a few steps")
    means = [{name: mean(values) for name, values in found.items()} for found in (align, finetune, answers)]
    return Rates(
        "the work that is done",
        means[0],
        means[1],
        means[2],
        calibrate=mean(calibrations) if calibrations else None,
        peak_gb=max((peak for peak in peaks if peak is not None), default=None),
    )


def _aligned_rows(stage: Stage, opened: Opened) -> float | None:
    """Rows that a stage trains on, passes counted."""

    def rows() -> float | None:
        count = _count(stage.settings.get("harmful", "embedded:harmful_train"), opened.library)
        # Every harmful prompt is answered by a refusal, and benign rows are added to those.
        return None if count is None else count / (1 - float(stage.settings.get("benign_ratio", 0.5)))

    return _passed(all_settings(stage.settings, "align", opened.config.model), rows)


def _tuned_rows(model: Model, opened: Opened) -> float | None:
    if not model.finetune:
        return None
    trained = all_settings(model.finetune, "finetune", opened.config.model)
    return _passed(trained, lambda: float(opened.config.upload.rows))


def _passed(trained: Settings, rows: Callable[[], float | None]) -> float | None:
    """Rows of all steps, or of all passes over so many."""
    if trained.get("steps") is not None:
        return float(trained["steps"] * trained["batch_size"])
    count = rows()
    return None if count is None else float(trained["epochs"]) * count


def _count(name: str, library: Library) -> int | None:
    """How many rows there are; of the Hub's, what the entry takes at most."""
    return library.most(name) if library.on_hub(name) else len(library.records(name))


def _probed(opened: Opened, stages: list[Stage], calibrations: list[Stage], tuned: list[Model]) -> Rates:
    """Trains a few steps by every method, calibrates once, and answers a few prompts."""
    forget_peak()
    rates = Rates("a probe of three steps of every method on this machine")
    with tempfile.TemporaryDirectory() as folder:
        place = Folder(Path(folder))
        library = opened.library.elsewhere(place.data)
        _probe_alignments(opened, {str(each.settings["method"]): each for each in stages}, rates, place, library)
        if calibrations:
            parent = _any_aligned(opened, place)
            rates.calibrate = _probe_calibration(calibrations[0], parent, place, library)
        if tuned:
            _probe_finetunings(opened, {str(each.finetune["method"]): each for each in tuned}, rates, place, library)
        _probe_answers(opened, rates)
    rates.peak_gb = peak_gb()
    return rates


def _probe_alignments(
    opened: Opened, stages: Mapping[str, Stage], rates: Rates, place: Folder, library: Library
) -> None:
    for method, stage in stages.items():
        settings = named_files(stage.settings, ROWS_OF_ALIGNMENT, library) | {"epochs": None}
        batch = all_settings(stage.settings, "align", opened.config.model)["batch_size"]

        def train(steps: int, settings: Settings = settings, method: str = method) -> None:
            output = place.aligned(f"{method}-{steps}")
            align(alignment_settings(settings | {"steps": steps}, model=opened.config.model, output=output))

        rates.align[method], rates.align_fixed = _per_row(train, batch, rates.align_fixed)


def _probe_finetunings(
    opened: Opened, models: Mapping[str, Model], rates: Rates, place: Folder, library: Library
) -> None:
    parent = _any_aligned(opened, place)
    upload = place.data / "upload.jsonl"
    for method, model in models.items():
        if not upload.exists():
            benign = library.task(model.upload, model.task)
            rows = opened.config.upload.rows
            write_records(upload, ATTACKS["mix"].upload(benign, [], ratio=0, rows=rows, seed=0))
        settings = named_files(model.finetune, ROWS_OF_FINETUNING, library) | {"epochs": None}
        batch = all_settings(model.finetune, "finetune", opened.config.model)["batch_size"]

        def train(steps: int, settings: Settings = settings, method: str = method) -> None:
            output = place.tuned(f"{method}-{steps}")
            given = settings | {"steps": steps}
            finetune(finetuning_settings(given, model=str(parent), output=output, data=str(upload)))

        rates.finetune[method], rates.finetune_fixed = _per_row(train, batch, rates.finetune_fixed)


def _probe_calibration(stage: Stage, aligned: Path, place: Folder, library: Library) -> float:
    """Seconds of a whole calibration: it takes the same however long the alignment was."""
    started = time.perf_counter()
    # All rows are read before a model that hardly trained is found to tell nothing apart.
    with contextlib.suppress(ModelError):
        calibrate_copy(stage, aligned, place.aligned("calibrated"), library)
    return time.perf_counter() - started


def _any_aligned(opened: Opened, place: Folder) -> Path:
    """A run that a gate can judge by, where there is one."""
    probed = sorted(path for path in place.path.glob("aligned/*") if not path.name.startswith("."))
    runs = [*probed, *map(opened.folder.aligned, opened.plan.stages)]
    complete = [run for run in runs if Run(run).complete]
    return next((run for run in complete if Run(run).manifest().get("calibration")), complete[0])


def _per_row(train: Callable[[int], None], batch: int, fixed: float) -> tuple[float, float]:
    """Seconds of a row, and those that a training takes however long it is: one step is timed too where not known."""
    times = {}
    for steps in (3,) if fixed else (1, 3):
        started = time.perf_counter()
        train(steps)
        times[steps] = time.perf_counter() - started
    step = (times[3] - times[1]) / 2 if not fixed else (times[3] - fixed) / 3
    return max(step, 0.0) / batch, fixed or max(times[1] - step, 0.0)


def _probe_answers(opened: Opened, rates: Rates) -> None:
    evaluated = opened.config.evaluate
    model = load_model(opened.config.model, dtype=evaluated.dtype, device=evaluated.device)

    def seconds(prompts: list[Any], longest: int) -> float:
        few = [record.prompt for record in prompts[:PROBED_PROMPTS]]
        started = time.perf_counter()
        generate(model.model, model.tokenizer, few, max_new_tokens=longest, batch_size=len(few))
        return (time.perf_counter() - started) * len(prompts) / len(few)

    asked = [name for name in (evaluated.prompts, evaluated.safe) if name is not None]
    shared = sum(seconds(opened.library.prompts(name), evaluated.max_new_tokens) for name in asked)
    for name, rows in opened.config.tasks.items():
        kind = rows.task or name
        task = seconds(opened.library.task(rows.test, kind), make_task(kind).max_new_tokens)
        rates.answers[name] = shared + task
