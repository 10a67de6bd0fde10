"""A stage on a Ray cluster, by Ray Train. The workers write to the run; a lost one is replaced and resumes from it."""

import logging
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from antibody.errors import AntibodyError, TrainingError, UsageError
from antibody.failures import machine_failures
from antibody.files import claim_directory
from antibody.models.run import Run, is_run
from antibody.quiet import quieten_libraries
from antibody.training.progress import following
from antibody.training.settings import LaunchSettings, TrainingSettings

LOCAL = "local"
# All workers begin anew where one is lost. ASSUMPTION: a stage that loses more fails for another reason.
MOST_LOSSES = 3
OBJECT_STORE_BYTES = 200_000_000
RAY_CLIENT_PORT = 10001
# Seconds in which a cluster must answer.
PATIENCE = 10


def run_on_cluster(stage: Callable[[Any], Any], settings: TrainingSettings, how: LaunchSettings) -> None:
    """Runs a stage in ``how.processes`` workers, one GPU each where the cluster has GPUs.

    Raises:
        AntibodyError: What the stage raises.
        TrainingError: ``process_lost``, where workers were lost too often.
        UsageError: ``cluster``, where there is no such cluster or it is too small.
    """
    assert how.cluster is not None, "asked for by its address"
    claim_directory(settings.output, ours=is_run(settings.output), resume=settings.resume, force=settings.force)
    # A new set of workers resumes, so the first does as well, in a directory that is now free or the run's own.
    settings = replace(settings, resume=True, force=False)
    storage = settings.output.resolve().with_name(f".{settings.output.name}.ray")
    _connect(how.cluster, how.processes)
    try:
        storage.mkdir(parents=True, exist_ok=True)
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "stage": stage,
                "settings": settings,
                "folder": str(Path.cwd()),
                "wrong": str(storage / "wrong"),
            },
            scaling_config=ScalingConfig(num_workers=how.processes, use_gpu=_has_gpus(settings, how.processes)),
            run_config=RunConfig(
                name=settings.output.name,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=MOST_LOSSES),
            ),
        )
        with following(Run(settings.output), f"Training with {how.processes} workers"):
            wrong = trainer.fit().return_value
    except TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {})
        raised = [failure for failure in failures.values() if isinstance(failure, AntibodyError)]
        raise (raised[0] if raised else _lost(error)) from error
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    if wrong is not None:
        raise wrong


def _work(job: dict[str, Any]) -> AntibodyError | None:
    """One worker. What it raises ends all workers, and Ray begins anew.

    An error that no repetition would mend is left for the next workers, which return it instead of training: had one
    worker returned at once, others that found nothing wrong would wait for it.
    """
    quieten_libraries()
    wrong = Path(job["wrong"])
    if wrong.exists():
        error: AntibodyError = pickle.loads(wrong.read_bytes())
        return error
    try:
        with machine_failures():
            os.chdir(job["folder"])
            job["stage"](job["settings"])
    except AntibodyError as error:
        wrong.write_bytes(pickle.dumps(error))
        raise
    return None


def _connect(address: str, workers: int) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            ray.init(
                num_cpus=max(workers, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            if address != "auto":
                _knock(address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"There is no Ray cluster at {address}: {error}",
            hint="Give --cluster ray://HOST:10001 of a running one, or --cluster local. "
            "One that asks for a token wants RAY_AUTH_MODE=token in the environment.",
            code="cluster",
        ) from error


def _knock(address: str) -> None:
    """Ray would go on asking a machine that does not answer."""
    where = urlsplit(address if "//" in address else f"//{address}")
    socket.create_connection((where.hostname or "", where.port or RAY_CLIENT_PORT), timeout=PATIENCE).close()


def _has_gpus(settings: TrainingSettings, workers: int) -> bool:
    """Whether workers get GPUs. A cluster that can never seat them all would be waited for without end.

    Raises:
        UsageError: It has too few GPUs or CPUs.
    """
    resources = ray.cluster_resources()
    use_gpu = settings.device != "cpu" and resources.get("GPU", 0) > 0
    kind = "GPU" if use_gpu else "CPU"
    there = int(resources.get(kind, 0))
    if there < workers:
        raise UsageError(
            f"The cluster has {there} {kind}s for {workers} workers.",
            hint=f"Ask for --processes {max(1, there)} or fewer.",
            code="cluster",
        )
    return use_gpu


def _lost(error: Exception) -> TrainingError:
    return TrainingError(
        f"The cluster gave up after {MOST_LOSSES} new beginnings: {error}",
        hint="Give the same command with --resume to go on.",
        code="process_lost",
    )
