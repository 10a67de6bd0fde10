"""A stage on a Ray cluster, by Ray Train. The workers write to the run; a lost one is replaced and resumes from it."""

import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from antibody.errors import AntibodyError, TrainingError, UsageError
from antibody.failures import machine_failures
from antibody.files import claim_directory
from antibody.models.run import Run, is_run
from antibody.quiet import quieten_libraries
from antibody.training.progress import following
from antibody.training.settings import LaunchSettings, TrainingSettings, refuse_own_output

LOCAL = "local"
# All workers begin anew where one is lost. ASSUMPTION: a stage that loses more fails for another reason.
MOST_LOSSES = 3
OBJECT_STORE_BYTES = 200_000_000
RAY_CLIENT_PORT = 10001
# Seconds in which a cluster must answer.
PATIENCE = 10


class _StopsAtOurs(UserCallback):  # type: ignore[misc]
    """Ends the training by an error of ours, which no repetition would mend. Where Ray controls the workers."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, AntibodyError):
                raise error


def run_on_cluster(stage: Callable[[Any], Any], settings: TrainingSettings, how: LaunchSettings) -> None:
    """Runs a stage in ``how.processes`` workers, one GPU each where the cluster has GPUs.

    Raises:
        AntibodyError: What the stage raises.
        TrainingError: ``process_lost``, where workers were lost too often.
        UsageError: ``cluster``, where there is no such cluster or it is too small.
    """
    assert how.cluster is not None, "asked for by its address"
    refuse_own_output(settings)
    # Whether it may be claimed. The workers do, once they have found nothing else wrong.
    claim_directory(
        settings.output, ours=is_run(settings.output), resume=settings.resume or settings.force, force=False
    )
    storage = settings.output.resolve().with_name(f".{settings.output.name}.ray")
    _connect(how.cluster, how.processes)
    try:
        use_gpu = _has_gpus(settings, how.processes)
        # What a driver that was killed left there.
        shutil.rmtree(storage, ignore_errors=True)
        storage.mkdir(parents=True)
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "stage": stage,
                "settings": settings,
                "folder": str(Path.cwd()),
                "found": _begun(settings.output),
            },
            scaling_config=ScalingConfig(num_workers=how.processes, use_gpu=use_gpu),
            run_config=RunConfig(
                name=settings.output.name,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=MOST_LOSSES),
                callbacks=[_StopsAtOurs()],
            ),
        )
        with following(Run(settings.output), f"Training with {how.processes} workers"):
            _fit(trainer)
    except TrainingFailedError as error:
        said = getattr(error, "controller_failure", None)
        raise (said if isinstance(said, AntibodyError) else _lost(error)) from error
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)


def _fit(trainer: TorchTrainer) -> None:
    """In a thread of its own: in the main one Ray takes Ctrl-C for itself, and the process ends without a word."""
    outcome: Future[object] = Future()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    outcome.result()


def _work(job: dict[str, Any]) -> None:
    """One worker. What it raises ends all workers; Ray begins anew, unless the error is ours."""
    quieten_libraries()
    settings: TrainingSettings = job["settings"]
    with machine_failures():
        os.chdir(job["folder"])
        if _begun(settings.output) != job["found"]:
            # By workers of which one was lost: these go on with their run.
            settings = replace(settings, resume=True, force=False)
        job["stage"](settings)


def _begun(output: Path) -> int | None:
    """Tells the run in a directory from one that was there before, by when it was last begun."""
    config = output / "config.yaml"
    return config.stat().st_mtime_ns if config.exists() else None


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
