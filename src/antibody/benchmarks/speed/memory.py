"""Peak memory of one contender, in a process of its own.

On a CPU it is the largest resident size of the whole process, libraries and model included; on CUDA the most that torch
had allocated. Two steps are made, so that the optimiser's state is there during the second.
"""

import multiprocessing
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch

from antibody.benchmarks.speed.contenders import Case, build, load, rows_of
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.errors import TrainingError

STEPS = 2
MEGABYTE = 1e6


class Memory(NamedTuple):
    """Megabytes of 10^6 bytes.

    Attributes:
        peak_mb: The most at any time.
        loaded_mb: The most before the first step: libraries, model, adapter, tokenised rows.
    """

    peak_mb: float
    loaded_mb: float


def measure(cases: Sequence[Case], settings: SpeedSettings, advance: Callable[[], None]) -> dict[Case, Memory]:
    """The memory of each case, one process after the other.

    Args:
        cases: What to measure.
        settings: Model, dtype and so on.
        advance: Called after each.

    Raises:
        TrainingError: A process was killed, most likely for its memory.
    """
    found: dict[Case, Memory] = {}
    # The processes are forked from a server that has imported the libraries but computed nothing, to save the start-up.
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        context.set_forkserver_preload([__name__])
    for case in cases:
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            try:
                found[case] = pool.submit(run, case, settings).result()
            except BrokenProcessPool as error:
                raise TrainingError(
                    f"The process that measured the memory of {case} was killed.",
                    hint="Choose a smaller batch_size, or leave memory out with --no-memory.",
                    code="out_of_memory",
                ) from error
        advance()
    return found


def run(case: Case, settings: SpeedSettings) -> Memory:
    """Trains two steps in this process and reads its peak."""
    # As the command line does; a process of its own knows nothing of it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    loaded = load(settings)
    rows = rows_of(case, loaded.tokenizer, STEPS, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(case, loaded, rows, steps=STEPS, output=Path(folder), settings=settings)
        before = peak(loaded.model.device)
        trainer.train()
    return Memory(peak_mb=peak(loaded.model.device), loaded_mb=before)


def peak(device: torch.device) -> float:
    """Megabytes at the most, since the process began; NaN where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    if sys.platform == "win32":
        return float("nan")
    import resource  # noqa: PLC0415 (not on Windows)

    # Kilobytes on Linux, bytes on macOS.
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / MEGABYTE if sys.platform == "darwin" else size * 1024 / MEGABYTE
