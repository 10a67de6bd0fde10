"""SIGKILL of the server, of a worker and of PostgreSQL: no job lost, none spoiled, no file half there.

Runs on PostgreSQL where there is one, else on SQLite. The long version, whose figures are in docs/service.md:
``ANTIBODY_FAULT_JOBS=50 python -m pytest tests/service/test_faults.py -s``.
"""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI
from service.conftest import FINISHED, POSTGRES, Postgres, Server, eventually, new_server, policy_for, rows

JOBS = int(os.environ.get("ANTIBODY_FAULT_JOBS", "3"))
STEPS = 40
HYPERPARAMETERS: Any = {"n_epochs": 8, "batch_size": 2}


@pytest.fixture
def database() -> Iterator[Postgres | None]:
    """One that may be killed."""
    if POSTGRES is None:
        yield None
        return
    running = Postgres()
    running.start()
    yield running
    running.remove()


@pytest.fixture
def victim(aligned: Path, database: Postgres | None, tmp_path: Path) -> Iterator[Server]:
    url = database.new_database() if database else None
    policy = policy_for(aligned, limits={"active_jobs": 1000}, evaluation={"prompts": "none"})
    running = new_server(tmp_path / "server", policy, url).start()
    yield running
    running.stop()


def training_worker(server: Server) -> psutil.Process | None:
    """The child that has loaded torch."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children()
    heavy = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return max(heavy, key=lambda child: child.memory_info().rss, default=None)


def patient(call: Callable[[], Any]) -> Any:
    """As a client does that outlives a server."""

    def tried() -> list[Any]:
        try:
            return [call()]
        except (openai.APIConnectionError, openai.InternalServerError):
            return []

    return eventually(tried, seconds=120, every=0.2)[0]


def metrics(client: OpenAI, job: str) -> list[int]:
    events = patient(lambda: list(client.fine_tuning.jobs.list_events(job, limit=100)))
    return [event.data["step"] for event in events if event.type == "metrics"][::-1]


def test_no_job_is_lost_and_none_is_spoiled(victim: Server, database: Postgres | None) -> None:
    chance = random.Random(JOBS)
    client = victim.client("faults", max_retries=0)
    file = client.files.create(file=("a.jsonl", rows(10)), purpose="fine-tune").id
    jobs = [
        client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=5, hyperparameters=HYPERPARAMETERS).id
        for _ in range(JOBS)
    ]
    kills = ["worker", "server"] + (["database"] if database else [])
    done: Counter[str] = Counter()

    def statuses() -> list[str]:
        found = patient(lambda: {job.id: job.status for job in client.fine_tuning.jobs.list(limit=100)})
        return [found[job] for job in jobs]

    def kill(what: str) -> None:
        if what == "worker":
            worker = training_worker(victim)
            if worker is not None:
                worker.kill()
        elif what == "server":
            victim.kill()
            victim.start()
        elif database is not None:
            database.stop(signal.SIGKILL)
            time.sleep(chance.random())
            database.start()
        done[what] += 1

    def in_training() -> bool:
        return any(status == "running" for status in statuses())

    began = time.monotonic()
    for what in kills if JOBS == 3 else chance.choices(kills, k=JOBS):
        eventually(lambda: in_training() or set(statuses()) <= set(FINISHED), every=0.1)
        if set(statuses()) <= set(FINISHED):
            break
        time.sleep(chance.random() * (0.5 if JOBS == 3 else 4))
        kill(what)
    eventually(lambda: set(statuses()) <= set(FINISHED), seconds=60 * JOBS, every=0.5)
    print(f"\n{JOBS} jobs, kills {dict(done)}, {time.monotonic() - began:.0f} s: {dict(Counter(statuses()))}")

    assert statuses() == ["succeeded"] * JOBS
    assert done.total() >= 2
    adapters = set()
    for job in jobs:
        run = victim.folder / "jobs" / job / "run"
        adapters.add(hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest())
        # Written by one process at a time, and what the user was told is what happened.
        assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
            *range(1, STEPS + 1)
        ]
        # One that a database that was away did not hear of is told at the end.
        assert sorted(metrics(client, job)) == list(range(1, STEPS + 1))
    # However often it was begun anew: the same model, bit for bit.
    assert len(adapters) == 1
    for blob in (victim.folder / "blobs").rglob("*"):
        assert blob.is_dir() or hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert len(list(client.models.list())) == JOBS + 1
