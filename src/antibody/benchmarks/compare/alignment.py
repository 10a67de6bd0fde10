"""Aligned models of a comparison: each stage is a run, made once for all methods and seeds that begin with it."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from antibody.benchmarks.compare.checking import ROWS_OF_ALIGNMENT, alignment_settings
from antibody.benchmarks.compare.config import Settings
from antibody.benchmarks.compare.folder import Folder
from antibody.benchmarks.compare.memory import forget_peak, peak_gb
from antibody.benchmarks.compare.plan import Stage
from antibody.benchmarks.compare.rows import Library
from antibody.errors import TrainingError, UsageError
from antibody.files import write_json
from antibody.models.run import Run, is_run
from antibody.screening.calibrate import calibrate
from antibody.screening.settings import CalibrationSettings
from antibody.training.stages import align

Result = TypeVar("Result")


class TakenError(Exception):
    """Another process is making it."""


def is_free(stages: Sequence[Stage], folder: Folder) -> bool:
    """Whether no other process is at the first of these stages that is missing."""
    for stage in stages:
        if not Run(folder.aligned(stage.key)).complete:
            with folder.held(stage.key) as ours:
                return ours
    return True


def aligned_run(stages: Sequence[Stage], base: str, folder: Folder, library: Library) -> Path:
    """The run of the last stage, made or gone on with where it is missing.

    Raises:
        TakenError: Another process is at one of the stages.
        TrainingError: ``alignment_failed``, when one of them failed lately; its error is in the folder.
        AntibodyError: As `align`.
    """
    for stage in stages:
        if Run(folder.aligned(stage.key)).complete:
            continue
        with folder.held(stage.key) as ours:
            if not ours:
                raise TakenError
            # Another process may have made it in the meantime.
            if not Run(folder.aligned(stage.key)).complete:
                _make(stage, base, folder, library)
    return folder.aligned(stages[-1].key)


def _make(stage: Stage, base: str, folder: Folder, library: Library) -> None:
    failed = folder.failed_lately(folder.stage_error(stage.key))
    if failed is not None:
        raise TrainingError(
            f"The alignment it starts from failed: {failed['message']}",
            hint="The method's first cell has the whole error.",
            code="alignment_failed",
        )
    model = str(folder.aligned(stage.parent)) if stage.parent else base
    started = time.perf_counter()
    forget_peak()
    try:
        if stage.calibrates:
            calibrate_copy(stage, Path(model), folder.aligned(stage.key), library)
        else:
            _align(stage, model, folder.aligned(stage.key), library)
    except Exception as error:
        write_json(folder.stage_error(stage.key), {"error": {"message": str(error)}})
        raise
    folder.stage_error(stage.key).unlink(missing_ok=True)
    seconds = round(time.perf_counter() - started, 1)
    write_json(folder.model(stage.key), {"seconds": seconds, "peak_gb": peak_gb()})


def continued(place: Path, train: Callable[[], Result]) -> Result:
    """Trains into a directory of ours, going on with what is there, or anew where that cannot be gone on with."""
    if place.exists() and not is_run(place):
        # Killed between making the directory and saying what it is.
        shutil.rmtree(place)
    try:
        return train()
    except (UsageError, TrainingError) as error:
        # The name of the directory says that it is this training: only paths can differ, as after moving the folder, or
        # what an earlier version wrote.
        if not error.code.startswith("resume_"):
            raise
        shutil.rmtree(place)
        return train()


def named_files(settings: Settings, names: Sequence[str], library: Library) -> Settings:
    """The settings with the files of the rows they name."""
    return settings | {
        name: library.refusals(settings[name]) if name == "refusals" else library.file(settings[name])
        for name in names
        if settings.get(name) is not None
    }


def calibrate_copy(stage: Stage, model: Path, place: Path, library: Library) -> None:
    """Calibrates a copy of a run, since other alignments may go on from the run as it is."""
    temporary = place.with_name(f".{place.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(model, temporary)
    settings = named_files(stage.settings, ROWS_OF_ALIGNMENT, library)
    calibrate(CalibrationSettings(model=str(temporary), seed=stage.seed, **settings))
    temporary.rename(place)


def _align(stage: Stage, model: str, place: Path, library: Library) -> None:
    settings = named_files(stage.settings, ROWS_OF_ALIGNMENT, library)
    given = alignment_settings(settings, model=model, output=place, seed=stage.seed, resume=True)
    continued(place, lambda: align(given))
