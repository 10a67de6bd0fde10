"""Worker processes that die, and a machine that lets none be begun for a while."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from service.conftest import eventually
from service.test_jobs import new_job, order, read

from antibody.service.jobs import local
from antibody.service.jobs.leases import claim
from antibody.service.jobs.local import Workers
from antibody.service.storage.store import Store


@pytest.fixture
def popen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OSError]]:
    """Begins processes that wait for their standard input to end, unless an error is put into the list."""
    errors: list[OSError] = []
    real = subprocess.Popen

    def begin(_: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return real([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], **options)

    monkeypatch.setattr(local.subprocess, "Popen", begin)
    yield errors


@pytest.mark.parametrize(("cluster", "released"), [(None, True), ("auto", False)])
def test_the_leases_of_a_dead_worker(cluster: str | None, released: bool, popen: Any, sqlite_store: Store) -> None:
    job = new_job(sqlite_store)
    workers = Workers(sqlite_store.database, [order(sqlite_store, "train")._replace(cluster=cluster)])
    dead = workers.slots[0]
    assert claim(sqlite_store.database, dead.order.worker, ["validating_files"], 100) == job
    dead.process.kill()
    eventually(lambda: workers.slots[0] is not dead and workers.alive)
    assert read(sqlite_store, job).worker == (None if released else dead.order.worker)
    workers.stop()


def test_a_worker_that_cannot_be_begun_is_begun_later(
    popen: list[OSError], sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local, "BACK_OFF", 0.05)
    workers = Workers(sqlite_store.database, [order(sqlite_store, "train")])
    popen += [OSError(errno.ENOMEM, "Cannot allocate memory") for _ in range(2)]
    dead = workers.slots[0]
    dead.process.kill()
    eventually(lambda: workers.slots[0] is not dead and workers.alive)
    assert caplog.text.count("Cannot allocate memory") == 2
    workers.stop()
