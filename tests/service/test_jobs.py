"""The state machine, leases, the worker's rules and what it writes, on both databases, without training."""

import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.conftest import eventually, rows
from sqlalchemy import select, update

from antibody.errors import DataError, UsageError
from antibody.service.jobs.events import tell
from antibody.service.jobs.hyperparameters import resolve
from antibody.service.jobs.leases import alone_in, claim, look, release, release_all, renew, writing_if_held
from antibody.service.jobs.orders import Order, read_order
from antibody.service.jobs.records import act, create_job
from antibody.service.jobs.results import audit_jsonl, suppressed
from antibody.service.jobs.review import approve_job, held_jobs, refuse_job
from antibody.service.jobs.states import FINISHED, REACHED_FROM, move
from antibody.service.jobs.stopping import LostLeaseError
from antibody.service.jobs.waiting import wait_for_disk
from antibody.service.jobs.worker import _attempt, _explained, _heartbeat
from antibody.service.policy import Defence, Policy
from antibody.service.storage.files import add_file
from antibody.service.storage.keys import KeyRing, create_key
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Event, Job
from antibody.service.wire.jobs import Hyperparameters, JobCreate, JobStatus

POLICY = Policy.model_validate({"models": {"tiny": {"run": "smollm2-135m", "allow_unaligned": True}}})


def new_job(store: Store, content: bytes | None = None) -> str:
    caller = KeyRing(store.database).find(create_key(store.database, project="one", name="").secret)
    assert caller is not None
    stored = store.blobs.store(io.BytesIO(rows(10) if content is None else content))
    with store.database.writing() as session:
        file = add_file(session, caller.project, stored, filename="a.jsonl", purpose="fine-tune")
        request = JobCreate(model="tiny", training_file=file.id)
        return create_job(session, caller, request, Hyperparameters(), file, None).id


def set_status(store: Store, job: str, **values: Any) -> None:
    with store.database.writing() as session:
        session.execute(update(Job).where(Job.id == job).values(**values))


def read(store: Store, job: str) -> Job:
    with store.database.reading() as session:
        return session.scalars(select(Job).where(Job.id == job)).one()


def order(store: Store, role: Any = "validate") -> Order:
    return Order(role=role, worker="me", place=store.place, policy=POLICY, lease_seconds=100)


def test_moves_are_those_of_the_table(sqlite_store: Store) -> None:
    job = new_job(sqlite_store)
    statuses: Sequence[JobStatus] = get_args(JobStatus)
    assert REACHED_FROM.keys() == set(statuses)
    for start in statuses:
        for to in statuses:
            set_status(sqlite_store, job, status=start, finished_at=None)
            with sqlite_store.database.writing() as session:
                assert move(session, job, to) == (start in REACHED_FROM[to])
            left = read(sqlite_store, job)
            assert left.status == (to if start in REACHED_FROM[to] else start)
            assert (left.finished_at is not None) == (left.status in FINISHED and left.status != start)
    # What is finished stays so.
    assert not any(REACHED_FROM[to] & FINISHED for to in statuses)


def test_of_many_workers_one_gets_the_job(store: Store) -> None:
    jobs = {new_job(store) for _ in range(3)}
    found: list[str | None] = []
    barrier = threading.Barrier(8)

    def work(name: str) -> None:
        barrier.wait()
        found.append(claim(store.database, name, ["validating_files"], 100))

    threads = [threading.Thread(target=work, args=(f"worker-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job for job in found if job) == sorted(jobs)
    assert found.count(None) == 5


def test_a_lease_ends_by_itself_and_then_is_anothers(store: Store) -> None:
    job = new_job(store)
    assert claim(store.database, "one", ["validating_files"], 100) == job
    assert claim(store.database, "two", ["validating_files"], 100) is None
    assert look(store.database, "one", job) == ("validating_files", True)
    assert not look(store.database, "two", job).mine
    assert renew(store.database, "one", job, -1)
    # Slow, but nobody has taken it.
    assert look(store.database, "one", job).mine
    assert renew(store.database, "one", job, 100)
    assert claim(store.database, "two", ["validating_files"], 100) is None
    assert renew(store.database, "one", job, -1)
    assert claim(store.database, "two", ["validating_files"], 100) == job
    assert read(store, job).attempts == 2
    assert not look(store.database, "one", job).mine
    assert not renew(store.database, "one", job, 100)
    with store.database.writing() as session:
        release(session, "one", job)
        assert not move(session, job, "queued", worker="one")
    assert look(store.database, "two", job).mine
    assert release_all(store.database, "two") == [job]
    assert claim(store.database, "three", ["validating_files"], 100) == job
    with store.database.writing() as session:
        release(session, "three", job, blameless=True)
    assert read(store, job).attempts == 0


@settings(max_examples=25, deadline=None)
@given(actions=st.lists(st.tuples(st.sampled_from(["cancel", "pause", "resume", "claim", "end", "lost"]),
                                  st.sampled_from(["a", "b"])), max_size=12))  # fmt: skip
def test_whatever_happens_a_job_has_one_worker_and_is_never_stuck(actions: Any, tmp_path_factory: Any) -> None:
    """A model of users, two workers and crashes. The lease says who works; an unfinished job can always be finished."""
    store = _shared_store(tmp_path_factory)
    with store.database.writing() as session:
        session.execute(update(Job).values(status="cancelled", worker=None, leased_until=None))
    job = new_job(store)
    set_status(store, job, status="queued")
    holder: str | None = None
    for action, name in actions:
        if action in ("cancel", "pause", "resume"):
            with store.database.writing() as session:
                act(session, session.scalars(select(Job).where(Job.id == job)).one(), action)
        elif action == "claim":
            got = claim(store.database, name, ["queued", "running"], 100)
            assert (got == job) == (holder is None and read(store, job).status in ("queued", "running"))
            if got:
                holder = name
                with store.database.writing() as session:
                    move(session, job, "running", worker=name)
        elif action == "lost" and holder == name:
            release_all(store.database, name)
            holder = None
        elif action == "end" and holder == name:
            with store.database.writing() as session:
                move(session, job, "succeeded", worker=name)
                release(session, name, job)
            holder = None
        assert read(store, job).worker == holder
    status = read(store, job).status
    if status not in FINISHED:
        if holder:
            release_all(store.database, holder)
        if status == "paused":
            with store.database.writing() as session:
                assert act(session, session.scalars(select(Job).where(Job.id == job)).one(), "resume") is None
        assert claim(store.database, "last", ["queued", "running"], 100) == job


STORES: list[Store] = []


def _shared_store(tmp_path_factory: Any) -> Store:
    from antibody.service.storage.store import Place, open_store

    if not STORES:
        folder = tmp_path_factory.mktemp("model")
        STORES.append(open_store(Place(folder, f"sqlite:///{folder / 'a.sqlite'}", str(folder / "blobs"))))
    return STORES[0]


def test_the_same_event_twice_is_one(store: Store) -> None:
    job = new_job(store)
    for message in ("Step 1", "Step 1 again"):
        with store.database.writing() as session:
            tell(session, job, message, once="step-1")
    tell_twice = ["A", "A"]
    with store.database.writing() as session:
        for message in tell_twice:
            tell(session, job, message)
    with store.database.reading() as session:
        messages = list(session.scalars(select(Event.message).where(Event.job_id == job).order_by(Event.number)))
    assert messages[2:] == ["Step 1", "A", "A"]


def test_a_validating_worker_queues_and_fails(store: Store) -> None:
    good, few = new_job(store), new_job(store, rows(3))
    for job in (good, few):
        assert claim(store.database, "me", ["validating_files"], 100) == job
        assert _attempt(store, order(store), job)
    assert read(store, good).status == "queued"
    failed = read(store, few)
    assert (failed.status, failed.error) == (
        "failed",
        {
            "code": "invalid_n_examples",
            "message": "Training file has 3 example(s), but must have at least 10 examples",
            "param": "training_file",
        },
    )


def test_a_job_that_loses_its_worker_too_often_fails_with_a_reason(store: Store) -> None:
    job = new_job(store)
    for _ in range(POLICY.training.most_attempts):
        assert claim(store.database, "me", ["validating_files"], -1) == job
    assert claim(store.database, "me", ["validating_files"], 100) == job
    _attempt(store, order(store), job)
    error = read(store, job).error
    assert error is not None
    assert error["code"] == "server_error"
    assert "5 times" in error["message"]


def test_a_defect_fails_one_job_and_says_nothing_of_its_content(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = new_job(sqlite_store)
    assert claim(sqlite_store.database, "me", ["validating_files"], 100) == job

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr("antibody.service.jobs.worker.validate", broken)
    _attempt(sqlite_store, order(sqlite_store), job)
    error = read(sqlite_store, job).error
    assert error is not None
    assert error["code"] == "server_error"
    assert "KeyError at test_jobs.py" in caplog.text
    assert "secret" not in caplog.text + str(error)


def test_held_jobs_wait_for_the_provider(store: Store) -> None:
    approved, refused = new_job(store), new_job(store)
    for job in (approved, refused):
        set_status(store, job, status="paused", held=True)
        with store.database.writing() as session:
            tell(session, job, "9 of 10", once="moderation", type="moderation_checks")
            resumed = act(session, session.scalars(select(Job).where(Job.id == job)).one(), "resume")
        assert resumed is not None
        assert "review" in resumed
    assert [held.judged for held in held_jobs(store.database)] == ["9 of 10", "9 of 10"]
    approve_job(store.database, approved)
    refuse_job(store.database, refused)
    assert held_jobs(store.database) == []
    now = read(store, approved)
    assert (now.status, now.approved, now.held) == ("queued", True, False)
    assert read(store, refused).status == "failed"
    for job in (approved, refused, "ftjob-x"):
        for say in (approve_job, refuse_job):
            with pytest.raises(UsageError, match="not held"):
                say(store.database, job)


@pytest.mark.parametrize(("status", "queued"), [("running", True), ("paused", False)])
def test_a_stopped_worker_does_not_resume_what_was_paused(sqlite_store: Store, status: JobStatus, queued: bool) -> None:
    job = new_job(sqlite_store)
    set_status(sqlite_store, job, status=status)
    with sqlite_store.database.writing() as session:
        assert move(session, job, "queued", only_from="running") is queued
    assert read(sqlite_store, job).status == ("queued" if queued else "paused")


def test_a_stop_between_claim_and_running_is_not_lost(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job, stopping, beats = new_job(sqlite_store), threading.Event(), threading.Semaphore(0)
    set_status(sqlite_store, job, status="queued")
    mine = order(sqlite_store, "train")._replace(lease_seconds=0.2)
    assert claim(sqlite_store.database, "me", ["queued"], 100) == job
    stopping.set()

    def counted(*arguments: Any) -> bool:
        beats.release()
        return renew(*arguments)

    monkeypatch.setattr("antibody.service.jobs.worker.renew", counted)
    with _heartbeat(sqlite_store, mine, job, stopping):
        for _ in range(2):
            assert beats.acquire(timeout=30)
        with sqlite_store.database.writing() as session:
            assert move(session, job, "running", worker="me")
        eventually(lambda: read(sqlite_store, job).status == "queued", seconds=30)
        with sqlite_store.database.writing() as session:
            act(session, session.scalars(select(Job).where(Job.id == job)).one(), "pause")
        for _ in range(2):
            assert beats.acquire(timeout=30)
    assert read(sqlite_store, job).status == "paused"


def test_an_estimate_goes_with_what_was_estimated(store: Store) -> None:
    for verb in ("pause", "cancel"):
        job = new_job(store)
        set_status(store, job, status="running", estimated_finish=1.0)
        with store.database.writing() as session:
            assert act(session, session.scalars(select(Job).where(Job.id == job)).one(), verb) is None
        assert read(store, job).estimated_finish is None


def test_who_lost_the_lease_says_nothing_more(store: Store) -> None:
    job = new_job(store)
    set_status(store, job, status="running", leased_until=1.0, worker="one")
    with writing_if_held(store.database, "one", job) as session:
        tell(session, job, "It has run out, and is nobody else's.")
    assert claim(store.database, "two", ["running"], 100) == job
    for worker in ("one", "three"):
        with pytest.raises(LostLeaseError), writing_if_held(store.database, worker, job) as session:
            tell(session, job, "Another's.")
        wait_for_disk(store.database, worker, job)
    with store.database.reading() as session:
        messages = list(session.scalars(select(Event.message).where(Event.job_id == job).order_by(Event.number)))
    assert messages[2:] == ["It has run out, and is nobody else's."]
    assert read(store, job).not_before is None


def test_one_process_at_a_time_in_a_directory(tmp_path: Path) -> None:
    with alone_in(tmp_path / "job") as first:
        assert first
        with alone_in(tmp_path / "job") as second:
            assert not second
    with alone_in(tmp_path / "job") as third:
        assert third


def test_an_order_comes_over_whole(sqlite_store: Store) -> None:
    sent = order(sqlite_store, "train")._replace(cluster="auto", processes=2)
    line = sent.to_line()
    assert line.count("\n") == 1
    assert read_order(line) == sent


@pytest.mark.parametrize(
    ("asked", "rows", "expected"),
    [
        ({}, 100, (4, 2)),  # the small preset's 40 steps of 4 rows
        ({}, 10, (4, 16)),
        ({"n_epochs": 3, "batch_size": 8}, 100, (8, 3)),
        ({"n_epochs": "auto", "batch_size": "auto"}, 3, (3, 40)),
        ({"batch_size": 5}, 10, (6, 24)),  # two processes share a batch equally
    ],
)
def test_auto_is_the_preset(asked: dict[str, Any], rows: int, expected: tuple[int, int]) -> None:
    job = Job(model="tiny", asked=asked)
    used = resolve(job, POLICY, rows=rows, processes=2 if asked.get("batch_size") == 5 else 1)
    assert (used.batch_size, used.n_epochs) == expected


def test_the_audit_says_which_rows_and_why(tmp_path: Path) -> None:
    row = {"line": 1, "id": "row-1", "withheld": False, "weight_mean": 1.2, "benign_probability": 0.9}
    withheld = row | {"line": 2, "withheld": True, "weight_mean": 0.0}
    low = row | {"line": 3, "weight_mean": 0.05}
    unseen = row | {"line": 4, "weight_mean": None}
    (tmp_path / "audit.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (row, withheld, low, unseen)))

    def judged(defence: Defence) -> list[dict[str, Any]]:
        return [json.loads(line) for line in audit_jsonl(tmp_path, defence).splitlines()]

    assert [each["suppressed"] for each in judged(Defence())] == [False, True, True, False]
    assert [bool(each["reason"]) for each in judged(Defence())] == [False, True, True, False]
    # The gate lets it pass, and its weight held it back all the same.
    assert [each["suppressed_by"] for each in judged(Defence())] == [None, "gate", "weight", None]
    assert (judged(Defence())[2]["gate_benign_probability"], judged(Defence())[2]["mean_weight"]) == (0.9, 0.05)
    without = judged(Defence(audit_scores=False))[1]
    assert without.keys() == {"line", "id", "suppressed", "suppressed_by", "reason"}
    assert suppressed(tmp_path, Defence()) == {"gate": 1, "weight": 1}


def test_errors_do_not_show_where_we_keep_things() -> None:
    job = Job(training_name="mine.jsonl", validation_name=None)
    path = "/var/lib/service/jobs/ftjob-x/training.jsonl"
    shown = _explained(DataError("Too long.", hint="Cut it.", code="x", path=path, line=3), job)
    assert (shown.code, shown.param) == ("invalid_training_file", "training_file")
    assert shown.message == "mine.jsonl, line 3: Too long. Cut it."
    long = DataError("Long.", hint="Raise --max-length.", code="prompt_fills_context", path=path, line=3)
    assert "--max-length" not in _explained(long, job).message
    assert "training.max_length of the policy" in _explained(long, job).message
    other = _explained(DataError("Gone.", hint="", code="file_not_found", path="/secret/anchors.jsonl"), job)
    assert (other.code, "secret" in other.message) == ("server_error", False)
