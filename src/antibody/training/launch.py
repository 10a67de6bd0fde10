"""The ways into a stage: this process, several on this machine, or the workers of a Ray cluster.

All of them train on the same batches and end in the same adapter. Only speed and memory differ.
"""

import logging
import os
import pickle
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from antibody.errors import AntibodyError, TrainingError, UsageError
from antibody.failures import machine_failures
from antibody.models.base import choose_device
from antibody.models.run import Run
from antibody.quiet import quieten_libraries
from antibody.training.settings import LaunchSettings

Stage = Callable[[Any], Run]


def launch(stage: Stage, settings: Any, how: LaunchSettings) -> Run:
    """Runs `align` or `finetune` as it is asked for.

    Raises:
        UsageError: The workers that are asked for cannot be begun.
        AntibodyError: What the stage raises, or `TrainingError` where a process was lost.
    """
    option = "--cluster" if how.cluster is not None else "--processes" if how.processes > 1 else None
    if option is not None and "WORLD_SIZE" in os.environ:
        raise UsageError(
            "This process is one of several already.",
            hint=f"Leave out {option} under accelerate launch or torchrun.",
            code="conflict",
        )
    if how.cluster is not None:
        try:
            from antibody.training.cluster import run_on_cluster  # noqa: PLC0415 - Ray is an extra
        except ModuleNotFoundError as error:
            raise UsageError(
                f"--cluster needs Ray, and {error.name} is not installed.",
                hint="pip install 'antibody-ft[ray]'",
                code="extra_missing",
            ) from error
        run_on_cluster(stage, settings, how)
    elif how.processes > 1:
        run_in_processes(stage, settings, how.processes)
    else:
        stage(settings)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return Run(settings.output)


def run_in_processes(stage: Stage, settings: Any, count: int) -> None:
    """Runs a stage in several processes of this machine, as ``torchrun`` would.

    Raises:
        AntibodyError: What a process raised.
        TrainingError: ``process_lost``, where none said anything.
    """
    device = choose_device(settings.device)
    if device.type != "cpu" and count > torch.accelerator.device_count():
        raise UsageError(
            f"There are {torch.accelerator.device_count()} GPUs for {count} processes.",
            hint="Ask for as many processes as there are GPUs, or for --device cpu.",
            code="device",
        )
    # Each process would otherwise take all cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            elastic_launch(config, _work)(stage, settings, Path(folder))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            # Another may have failed first: what it leaves undone makes the others fail, of which one is seen first.
            said = sorted(Path(folder).glob("rank-*"))
            if said:
                raise pickle.loads(said[0].read_bytes()) from None
            raise _lost(rank, failure.exitcode) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise


def _work(stage: Stage, settings: Any, folder: Path) -> None:
    """One process. Leaves an error of ours in the folder, under its rank, whole or not at all."""
    quieten_libraries()
    try:
        with machine_failures():
            stage(settings)
    except AntibodyError as error:
        unfinished = folder / f".{os.environ['RANK']}"
        unfinished.write_bytes(pickle.dumps(error))
        unfinished.rename(folder / f"rank-{os.environ['RANK']}")
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - a defect of ours: whatever it is, its traceback must be seen
        traceback.print_exc()
        sys.exit(1)
    torch.distributed.destroy_process_group()


def _lost(rank: int, exit_code: int) -> TrainingError:
    how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
    return TrainingError(
        f"Process {rank} {how}.", hint="Give the same command with --resume to go on.", code="process_lost"
    )
