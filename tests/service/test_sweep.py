"""What is removed when nobody needs it any more, and what is not."""

import errno
import io
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from service.conftest import Api, rows
from service.test_jobs import new_job, read, set_status
from sqlalchemy import update

from antibody.service.jobs.states import move
from antibody.service.policy import Retention
from antibody.service.storage.files import add_file, stored_bytes
from antibody.service.storage.runs import TRAINING_ROWS, VALIDATION_ROWS
from antibody.service.storage.store import Store
from antibody.service.storage.tables import File, Job, Model, Upload, UploadPart


def add_model(store: Store, job: str, name: str = "ft:tiny:one::x") -> None:
    project = read(store, job).project_id
    with store.database.writing() as session:
        session.add(Model(id=name, project_id=project, job_id=job, base="tiny", run="nowhere", created_at=0.0))


def test_what_expired_is_removed_and_no_longer_counted(store: Store) -> None:
    job = new_job(store)
    project, kept = read(store, job).project_id, store.blobs.store(io.BytesIO(b"kept"))
    part = store.blobs.store(io.BytesIO(b"part"))
    with store.database.writing() as session:
        session.execute(update(File).values(expires_at=1.0))
        add_file(session, project, kept, filename="kept.jsonl", purpose="fine-tune")
        when: dict[str, Any] = {"status": "pending", "created_at": 0.0, "expires_at": 1.0}
        session.add(Upload(id="u", project_id=project, filename="a", purpose="fine-tune", bytes=9, **when))
        session.flush()
        session.add(UploadPart(id="p", upload_id="u", sha256=part.sha256, bytes=4, created_at=0.0))
        assert stored_bytes(session, project).kept == 4
        move(session, job, "cancelled")
    assert store.sweep(grace=-1) == 2
    assert store.blobs.names() == [kept.sha256]


def test_directories_of_jobs_that_made_nothing_go_and_their_audits_stay(store: Store) -> None:
    ended = {"failed": 1.0, "cancelled": 1.0, "paused": None, "succeeded": 1.0}
    jobs = {status: new_job(store) for status in ended}
    lately, leased = new_job(store), new_job(store)
    for status, job in (*jobs.items(), ("failed", lately), ("failed", leased)):
        set_status(store, job, status=status, finished_at=time.time() if job == lately else ended[status])
        (store.place.runs / job / "run" / "checkpoints").mkdir(parents=True)
        (store.place.runs / job / "run" / "audit.jsonl").write_text("{}")
    set_status(store, leased, leased_until=time.time() + 100)
    add_model(store, jobs["succeeded"])

    def left() -> set[str]:
        return {path.parent.name for path in store.place.runs.glob("*/run")}

    store.sweep(Retention(failed_days=None))
    assert left() == {*jobs.values(), lately, leased}
    for _ in range(2):
        store.sweep()
        assert left() == {*jobs.values(), lately, leased} - {jobs["failed"]}
    assert [path.name for path in (store.place.runs / jobs["failed"]).iterdir()] == ["audit.jsonl"]
    store.sweep(Retention(cancelled_days=1))
    assert left() == {jobs["paused"], jobs["succeeded"], lately, leased}


def test_what_is_stored_again_while_it_is_swept_away_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.blobs.store(io.BytesIO(b"again"))
    remove, again = store.blobs.remove, threading.Thread(target=store.blobs.store, args=(io.BytesIO(b"again"),))

    def at_the_last_moment(sha256: str) -> None:
        again.start()
        # It cannot come in between; where it could, this is time enough.
        again.join(0.5)
        remove(sha256)

    monkeypatch.setattr(store.blobs, "remove", at_the_last_moment)
    # With this grace it would take what is being stored for old.
    monkeypatch.setattr(store.blobs, "clean_spool", lambda _: None)
    assert store.sweep(grace=-1) == 1
    again.join()
    assert b"".join(store.blobs.pieces(old.sha256)) == b"again"


def test_files_of_unfinished_jobs_and_no_others_survive_their_deletion(store: Store) -> None:
    job = new_job(store)
    sha256 = read(store, job).training_sha256
    with store.database.writing() as session:
        session.execute(update(Job).where(Job.id == job).values(training_file="gone"))
        for table in ("files",):
            session.connection().exec_driver_sql(f"DELETE FROM {table}")
    assert store.sweep(grace=-1) == 0
    assert b"".join(store.blobs.pieces(sha256)) == rows(10)
    with store.database.writing() as session:
        move(session, job, "cancelled")
    assert store.sweep() == 0
    assert store.sweep(grace=-1) == 1
    assert store.blobs.names() == []


def test_rows_of_jobs_that_ended_while_nobody_worked_on_them_go(store: Store) -> None:
    """As of one that was paused, or held, and then cancelled."""
    jobs = {status: new_job(store) for status in ("paused", "cancelled", "failed")}
    leased = new_job(store)
    for status, job in (*jobs.items(), ("cancelled", leased)):
        set_status(store, job, status=status, finished_at=None if status == "paused" else time.time())
        (store.place.runs / job).mkdir()
        for name in (TRAINING_ROWS, VALIDATION_ROWS, "settings.json"):
            (store.place.runs / job / name).write_text("{}")
    set_status(store, leased, leased_until=time.time() + 100)
    store.sweep()
    with_rows = {path.parent.name for path in store.place.runs.glob("*/*.jsonl")}
    assert with_rows == {jobs["paused"], leased}
    assert len(list(store.place.runs.glob("*/settings.json"))) == 4
    set_status(store, leased, leased_until=1.0)
    store.sweep()
    assert {path.parent.name for path in store.place.runs.glob("*/*.jsonl")} == {jobs["paused"]}


def test_a_deleted_model_that_could_not_be_removed_is_removed_later(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, job = api.client("one"), new_job(api.store)
    set_status(api.store, job, status="succeeded", finished_at=1.0)
    add_model(api.store, job)
    adapter = api.store.place.runs / job / "run" / "adapter"
    adapter.mkdir(parents=True)
    api.store.sweep()
    assert adapter.exists()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        assert client.delete("/v1/models/ft:tiny:one::x").status_code == 200
    assert f"{job} cannot be removed (Device or resource busy)" in caplog.text
    assert adapter.exists()
    api.store.sweep()
    assert not (api.store.place.runs / job).exists()
    # What is gone is not looked for again.
    api.store.sweep()


def test_two_servers_may_sweep_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"one", b"two"):
        store.blobs.store(io.BytesIO(content))
    job = new_job(store)
    set_status(store, job, status="failed", finished_at=1.0)
    run = store.place.runs / job / "run"
    run.mkdir(parents=True)
    listed, rmtree = store.blobs.ages, shutil.rmtree

    def another_was_faster() -> dict[str, float]:
        ages = listed()
        for name in list(ages)[:1]:
            store.blobs.remove(name)
        return ages

    def removed_twice(folder: Path, *arguments: Any, **options: Any) -> None:
        rmtree(folder)
        rmtree(folder, *arguments, **options)

    monkeypatch.setattr(store.blobs, "ages", another_was_faster)
    monkeypatch.setattr(shutil, "rmtree", removed_twice)
    with store.database.writing() as session:
        session.execute(update(File).values(expires_at=1.0))
    assert store.sweep(grace=-1) == 2
    assert store.blobs.names() == []
    assert not run.exists()
