"""Jobs that are stopped where no step is being made: before they begin, while rows are screened, and at their end."""

from pathlib import Path
from typing import Any

import pytest
from service.conftest import rows
from service.test_jobs import new_job, read, set_status
from service.test_training import attempt, events
from sqlalchemy import select

from antibody.screening.reading import read_rows
from antibody.service.jobs.records import act
from antibody.service.jobs.room import Memory
from antibody.service.storage.store import Store
from antibody.service.storage.tables import File, Job, Model
from antibody.service.wire.files import RESULTS


@pytest.fixture
def queued(sqlite_store: Store) -> str:
    """A job of three batches to screen."""
    job = new_job(sqlite_store, rows(40))
    set_status(sqlite_store, job, status="queued", asked={"n_epochs": 1, "batch_size": 20})
    return job


def say(store: Store, job: str, verb: str) -> None:
    with store.database.writing() as session:
        assert act(session, session.scalars(select(Job).where(Job.id == job)).one(), verb) is None


def results(store: Store) -> list[File]:
    with store.database.reading() as session:
        assert list(session.scalars(select(Model))) == []
        return list(session.scalars(select(File).where(File.purpose == RESULTS)))


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_before_a_job_goes_on(
    verb: str, sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_meanwhile(_: str) -> Memory:
        say(sqlite_store, queued, verb)
        return Memory(0, 1, 1)

    monkeypatch.setattr("antibody.service.jobs.worker.memory_for", stopped_meanwhile)
    set_status(sqlite_store, queued, status="running")
    attempt(sqlite_store, queued, aligned)
    assert read(sqlite_store, queued).worker is None
    assert len(events(sqlite_store, queued)) == 3
    assert not (sqlite_store.place.runs / queued / "settings.json").exists()


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_while_rows_are_screened(
    verb: str, sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_so_far: list[int] = []

    def stopped_meanwhile(*arguments: Any, progress: Any, **options: Any) -> Any:
        def told(done: int) -> None:
            read_so_far.append(done)
            if len(read_so_far) == 1:
                say(sqlite_store, queued, verb)
            progress(done)

        return read_rows(*arguments, progress=told, **options)

    monkeypatch.setattr("antibody.training.reading.read_rows", stopped_meanwhile)
    attempt(sqlite_store, queued, aligned)
    assert read_so_far == [16]
    assert read(sqlite_store, queued).status == {"cancel": "cancelled", "pause": "paused"}[verb]
    assert not any(event.type != "message" for event in events(sqlite_store, queued))
    if verb == "pause":
        say(sqlite_store, queued, "resume")
        attempt(sqlite_store, queued, aligned)
        assert read(sqlite_store, queued).status == "succeeded"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_while_its_safety_is_evaluated(
    verb: str, sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped_meanwhile(*_: Any, progress: Any, **__: Any) -> None:
        say(sqlite_store, queued, verb)
        progress(1)
        pytest.fail("it goes on")

    evaluation = {"limit": 2, "max_new_tokens": 2, "most_harmful_score": 100}
    with monkeypatch.context() as patched:
        patched.setattr("antibody.evaluation.evaluate.evaluate_harmful", stopped_meanwhile)
        attempt(sqlite_store, queued, aligned, evaluation=evaluation)
    assert read(sqlite_store, queued).status == {"cancel": "cancelled", "pause": "paused"}[verb]
    assert results(sqlite_store) == []
    if verb == "pause":
        say(sqlite_store, queued, "resume")
        attempt(sqlite_store, queued, aligned, evaluation=evaluation)
        assert read(sqlite_store, queued).status == "succeeded"


def test_while_its_results_are_stored(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stored = sqlite_store.blobs.store, []

    def stopped_meanwhile(*arguments: Any, **options: Any) -> Any:
        if not stored:
            say(sqlite_store, queued, "cancel")
        stored.append(store(*arguments, **options))
        return stored[-1]

    monkeypatch.setattr(sqlite_store.blobs, "store", stopped_meanwhile)
    attempt(sqlite_store, queued, aligned)
    job = read(sqlite_store, queued)
    assert (job.status, job.result_files, len(stored)) == ("cancelled", [], 2)
    assert results(sqlite_store) == []


def test_an_estimate_is_not_made_of_what_was_cancelled(
    sqlite_store: Store, queued: str, aligned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antibody.service.jobs.watching import Watcher

    logged, estimates = Watcher.on_log, []

    def stopped_meanwhile(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 2:
            estimates.append(read(sqlite_store, queued).estimated_finish)
            say(sqlite_store, queued, "cancel")
        logged(self, args, state, control, **more)

    monkeypatch.setattr(Watcher, "on_log", stopped_meanwhile)
    attempt(sqlite_store, queued, aligned)
    assert estimates != [None]
    assert (read(sqlite_store, queued).status, read(sqlite_store, queued).estimated_finish) == ("cancelled", None)
