"""A worker's training of one job, in this process: what the policy does to it, and what a database that fails does."""

import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from service.conftest import eventually, policy_for
from service.test_jobs import new_job, read, set_status
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from antibody.service.jobs.leases import claim, release
from antibody.service.jobs.orders import Order
from antibody.service.jobs.review import approve_job, held_jobs, judgement
from antibody.service.jobs.room import Memory
from antibody.service.jobs.worker import _attempt, _give_back
from antibody.service.policy import Policy
from antibody.service.storage.blobs import BlobStore
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Checkpoint, Event, File, Job, Model

# Longer than any test: nothing renews it here.
LEASE = 3000
ALL_WITHHELD = {"threshold": 1.0}


@pytest.fixture
def queued(sqlite_store: Store) -> str:
    job = new_job(sqlite_store)
    set_status(sqlite_store, job, status="queued", asked={"n_epochs": 1, "batch_size": 4})
    return job


def attempt(store: Store, job: str, aligned: Path, cluster: str | None = None, **parts: Any) -> None:
    """What a worker does with the next job."""
    policy = Policy.model_validate(policy_for(aligned, **({"evaluation": {"prompts": "none"}} | parts)))
    order = Order(role="train", worker="me", place=store.place, policy=policy, lease_seconds=LEASE)
    if cluster is not None:
        order = order._replace(cluster=cluster, processes=2)
    assert claim(store.database, "me", ["queued", "running"], LEASE) == job
    blameless = _attempt(store, order, job)
    _give_back(store, order, job, blameless=blameless)


def events(store: Store, job: str) -> list[Event]:
    with store.database.reading() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job).order_by(Event.number)))


def of_file(store: Store, file_id: str) -> str:
    with store.database.reading() as session:
        return session.scalars(select(File.sha256).where(File.id == file_id)).one()


def moderation(store: Store, job: str) -> dict[str, Any]:
    return next(event.data for event in events(store, job) if event.type == "moderation_checks")


def test_mostly_suppressed_uploads_are_held_until_the_provider_approves(
    sqlite_store: Store, queued: str, aligned: Path
) -> None:
    held = {"defence": ALL_WITHHELD | {"mostly_suppressed": "hold"}}
    attempt(sqlite_store, queued, aligned, **held)
    job = read(sqlite_store, queued)
    assert (job.status, job.held, job.worker) == ("paused", True, None)
    judged = moderation(sqlite_store, queued)
    assert (judged["action"], judged["blocked"], judged["withheld"]) == ("hold", True, 10)
    assert judged["lines"] == list(range(1, 11))
    assert [each.job for each in held_jobs(sqlite_store.database)] == [queued]
    rows = judgement(sqlite_store.database, sqlite_store.place.runs, queued)
    assert [(row["line"], row["withheld"], row["weight_mean"]) for row in rows] == [
        (line, True, 0.0) for line in range(1, 11)
    ]
    [judged_file] = job.result_files
    assert claim(sqlite_store.database, "other", ["queued", "running"], 100) is None
    approve_job(sqlite_store.database, queued)
    attempt(sqlite_store, queued, aligned, **held)
    job = read(sqlite_store, queued)
    assert (job.status, len(job.result_files), job.result_files[-1]) == ("succeeded", 3, judged_file)
    # Nothing of it was trained on all the same.
    steps = [event for event in events(sqlite_store, queued) if event.type == "metrics"]
    assert [step.data["train_loss"] for step in steps] == [None] * 3
    assert steps[0].message == "Step 1/3: every row was withheld"


def test_a_job_is_judged_by_the_policy_that_it_was_begun_under(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    with monkeypatch.context() as patched:
        patched.setattr("antibody.service.jobs.training.launch", away)
        attempt(sqlite_store, queued, aligned, defence=ALL_WITHHELD)
    attempt(sqlite_store, queued, aligned, defence={"threshold": 0.001, "mostly_suppressed": "refuse"})
    assert read(sqlite_store, queued).status == "succeeded"
    judged = moderation(sqlite_store, queued)
    assert (judged["action"], judged["withheld"]) == ("warn", 10)


def test_mostly_suppressed_uploads_are_refused(sqlite_store: Store, queued: str, aligned: Path) -> None:
    attempt(sqlite_store, queued, aligned, defence=ALL_WITHHELD | {"mostly_suppressed": "refuse"})
    job = read(sqlite_store, queued)
    assert (job.status, job.error["code"] if job.error else None) == ("failed", "mostly_suppressed")
    assert moderation(sqlite_store, queued)["action"] == "refuse"
    assert len(job.result_files) == 1
    judged = b"".join(sqlite_store.blobs.pieces(of_file(sqlite_store, job.result_files[0]))).splitlines()
    assert [json.loads(line)["suppressed_by"] for line in judged] == ["gate"] * 10
    assert not (sqlite_store.place.runs / queued / "run" / "adapter").exists()
    assert not (sqlite_store.place.runs / queued / "training.jsonl").exists()


@pytest.mark.parametrize(("score", "unparsable"), [(60.0, 0.0), (math.nan, 0.0), (10.0, 90.0)])
def test_a_model_that_fails_the_safety_evaluation_never_becomes_available(
    score: float, unparsable: float, sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measured(settings: Any, **_: Any) -> Any:
        asked.append(settings)
        return {"harmful": {"harmful_score": score, "unparsable_rate": unparsable}}

    monkeypatch.setattr("antibody.service.jobs.training.evaluate", measured)
    attempt(sqlite_store, queued, aligned, evaluation={"most_harmful_score": 50, "limit": 7})
    job = read(sqlite_store, queued)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "unsafe_model"
    assert (asked[0].limit, asked[0].model) == (7, str(sqlite_store.place.runs / queued / "run"))
    assert job.fine_tuned_model is None
    with sqlite_store.database.reading() as session:
        assert list(session.scalars(select(Model))) == []


def test_a_job_too_large_for_the_memory_says_so_and_lets_others_pass(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [Memory(needed=6 * 2**30, free=2**30, total=8 * 2**30)]
    monkeypatch.setattr("antibody.service.jobs.worker.memory_for", lambda _: room[0])
    attempt(sqlite_store, queued, aligned)
    job = read(sqlite_store, queued)
    assert (job.status, job.worker, job.attempts) == ("queued", None, 0)
    assert events(sqlite_store, queued)[-1].message == (
        "Training takes about 6.0 GB of memory, and 1.0 GB are free. The job waits; smaller ones go first."
    )
    smaller = new_job(sqlite_store)
    set_status(sqlite_store, smaller, status="queued")
    assert claim(sqlite_store.database, "other", ["queued", "running"], LEASE) == smaller
    # It waits for a while only, and what can never fit does not wait.
    set_status(sqlite_store, queued, not_before=1.0)
    room[0] = Memory(needed=9 * 2**30, free=2**30, total=8 * 2**30)
    attempt(sqlite_store, queued, aligned)
    error = read(sqlite_store, queued).error
    assert error is not None
    assert error["code"] == "model_too_large"
    assert "9.0 GB of memory, and the machine has 8.0 GB" in error["message"]


def test_a_job_waits_for_blobs_that_cannot_be_reached(
    sqlite_store: Store, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it trains, and when it has: hours of training are not lost to a store of objects that is begun anew."""
    blobs = BlobStore(f"memory://{sqlite_store.place.folder.name}", sqlite_store.blobs.spool)
    store = replace(sqlite_store, blobs=blobs)
    job = new_job(store)
    set_status(store, job, status="queued", asked={"n_epochs": 1, "batch_size": 4})
    unreachable = Mock(side_effect=Exception("no OSError, as of botocore"))
    for asked, told in (("open", 0), ("put_file", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(blobs.filesystem, asked, unreachable)
            attempt(store, job, aligned)
        left = read(store, job)
        assert (left.status, left.worker, left.error) == ("queued", None, None)
        assert left.not_before is not None
        assert sum(event.type == "metrics" for event in events(store, job)) == told
        assert any("storage does not answer" in event.message for event in events(store, job))
        set_status(store, job, not_before=None)
    attempt(store, job, aligned)
    assert read(store, job).status == "succeeded"


def test_a_job_that_is_cancelled_while_it_is_screened_trains_nothing(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antibody.service.jobs.watching import Watcher

    screened = Watcher._tell_screening

    def cancelled_meanwhile(self: Any) -> None:
        screened(self)
        with sqlite_store.database.writing() as session:
            session.execute(update(Job).where(Job.id == queued).values(status="cancelled"))

    monkeypatch.setattr(Watcher, "_tell_screening", cancelled_meanwhile)
    attempt(sqlite_store, queued, aligned)
    assert read(sqlite_store, queued).status == "cancelled"
    assert [event for event in events(sqlite_store, queued) if event.type == "metrics"] == []


def test_a_worker_whose_lease_was_lost_writes_nothing_more(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antibody.service.jobs.watching import Watcher

    logged = Watcher.on_log

    def lost_meanwhile(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 2:
            with sqlite_store.database.writing() as session:
                release(session, "me", queued)
            assert claim(sqlite_store.database, "another", ["running"], 100) == queued
        logged(self, args, state, control, **more)

    monkeypatch.setattr(Watcher, "on_log", lost_meanwhile)
    attempt(sqlite_store, queued, aligned)
    job = read(sqlite_store, queued)
    assert (job.status, job.worker) == ("running", "another")
    steps = [event.data["step"] for event in events(sqlite_store, queued) if event.type == "metrics"]
    assert steps == [1]
    assert list((sqlite_store.place.runs / queued / "run").glob("checkpoints/*")) == []


class KilledError(BaseException):
    """As little of what is written to catch errors runs as after a SIGKILL."""


def test_a_checkpoint_that_was_saved_and_not_told_of_is_listed_all_the_same(
    sqlite_store: Store, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antibody.service.jobs.watching import Watcher

    def killed(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        raise KilledError

    listed = []
    for kill in (True, False):
        job = new_job(sqlite_store)
        set_status(sqlite_store, job, status="queued", seed=1, asked={"n_epochs": 4, "batch_size": 4})
        if kill:
            with monkeypatch.context() as patched, pytest.raises(KilledError):
                patched.setattr(Watcher, "on_save", killed)
                attempt(sqlite_store, job, aligned)
            with sqlite_store.database.writing() as session:
                release(session, "me", job)
        attempt(sqlite_store, job, aligned)
        assert read(sqlite_store, job).status == "succeeded"
        with sqlite_store.database.reading() as session:
            found = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job).order_by(Checkpoint.number))
            listed.append([(each.step, each.metrics) for each in found])
    assert [step for step, _ in listed[0]] == [5, 10, 12]
    assert listed[0] == listed[1]


def test_what_cannot_be_told_now_is_told_later(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that does not answer for two steps costs neither the job nor an event."""
    from antibody.service.jobs import listening, watching

    real_look, real_tell = listening.look, watching.tell
    failures = iter([True] * 2)

    def failing_look(*arguments: Any, **options: Any) -> Any:
        if next(failures, False):
            raise OperationalError("", {}, Exception("gone"))
        return real_look(*arguments, **options)

    told: list[str] = []

    def failing_tell(session: Any, job: str, **more: Any) -> None:
        told.append(more["once"])
        if told.count("step-1") == 1 and more["once"] == "step-1":
            raise OperationalError("", {}, Exception("gone"))
        real_tell(session, job, **more)

    monkeypatch.setattr(listening, "look", failing_look)
    monkeypatch.setattr(watching, "tell", failing_tell)
    attempt(sqlite_store, queued, aligned)
    assert read(sqlite_store, queued).status == "succeeded"
    # It failed, was told, and was there already when all were told at the end.
    assert told.count("step-1") == 3
    steps = [event.data["step"] for event in events(sqlite_store, queued) if event.type == "metrics"]
    assert steps == [1, 2, 3]


def test_a_rate_at_which_it_diverges_is_a_clear_error(sqlite_store: Store, queued: str, aligned: Path) -> None:
    models = {"tiny": {"run": str(aligned), "learning_rate": 1e30}}
    set_status(sqlite_store, queued, asked={"n_epochs": 3, "batch_size": 4})
    attempt(sqlite_store, queued, aligned, models=models)
    job = read(sqlite_store, queued)
    assert (job.status, job.error["code"] if job.error else None) == ("failed", "training_diverged")


def test_a_job_waits_for_a_model_that_the_policy_names_no_more(sqlite_store: Store, queued: str, aligned: Path) -> None:
    """It may be a slip, and a job that failed is lost."""
    attempt(sqlite_store, queued, aligned, models={"other": {"run": str(aligned)}})
    job = read(sqlite_store, queued)
    assert (job.status, job.worker) == ("queued", None)
    assert job.not_before is not None
    assert "does not offer tiny" in events(sqlite_store, queued)[-1].message


@pytest.mark.skipif("ANTIBODY_LONG_TESTS" not in os.environ, reason="two Ray clusters: set ANTIBODY_LONG_TESTS=1")
# What Ray and the libraries below it say of each other, in this process.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_the_ray_executor_trains_the_same_model_and_can_be_stopped(
    sqlite_store: Store, queued: str, aligned: Path
) -> None:
    """Two workers of a local cluster, cancelled by the user while they train; then a job that ends."""
    alone = new_job(sqlite_store)
    values: dict[str, Any] = {"status": "queued", "asked": {"n_epochs": 2, "batch_size": 4}, "seed": 3}
    set_status(sqlite_store, queued, **values)
    attempt(sqlite_store, queued, aligned, cluster="local")
    set_status(sqlite_store, alone, **values)
    attempt(sqlite_store, alone, aligned)
    for job in (queued, alone):
        assert read(sqlite_store, job).status == "succeeded"
        steps = [event.data["step"] for event in events(sqlite_store, job) if event.type == "metrics"]
        assert steps == list(range(1, 7))
    adapters = [
        load_file(sqlite_store.place.runs / job / "run" / "adapter" / "adapter_model.safetensors")
        for job in (queued, alone)
    ]
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name], atol=1e-5, rtol=0)

    stopped = new_job(sqlite_store)
    set_status(sqlite_store, stopped, status="queued", asked={"n_epochs": 50, "batch_size": 4})

    def cancel() -> None:
        eventually(lambda: any(event.type == "metrics" for event in events(sqlite_store, stopped)), seconds=300)
        set_status(sqlite_store, stopped, status="cancelled")

    user = threading.Thread(target=cancel)
    user.start()
    attempt(sqlite_store, stopped, aligned, cluster="local")
    user.join()
    assert read(sqlite_store, stopped).status == "cancelled"
    [checkpoint] = sorted((sqlite_store.place.runs / stopped / "run" / "checkpoints").glob("checkpoint-*"))[-1:]
    steps = [event.data["step"] for event in events(sqlite_store, stopped) if event.type == "metrics"]
    assert steps[-1] == int(checkpoint.name.rpartition("-")[2]) < 150
