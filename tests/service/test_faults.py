"""SIGKILL of the server, of a worker and of PostgreSQL: no job lost, none spoiled, no file half there.

Runs on PostgreSQL where there is one, else on SQLite. The long version, whose figures are in docs/service.md, fills the
disk of blobs and runs too, where it may mount one:
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
from service.disks import fill, half_written, mounted_disk

SHORT = 3
JOBS = int(os.environ.get("ANTIBODY_FAULT_JOBS", str(SHORT)))
MEGABYTES = 512
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
def disk() -> Iterator[Path | None]:
    """One that may be filled, for the long version: tests/service/test_full_disk.py has a short one of its own."""
    if JOBS == SHORT:
        yield None
        return
    with mounted_disk(MEGABYTES) as mounted:
        yield mounted


@pytest.fixture
def victim(aligned: Path, database: Postgres | None, disk: Path | None, tmp_path: Path) -> Iterator[Server]:
    url = database.new_database() if database else f"sqlite:///{tmp_path / 'service.sqlite'}"
    policy = policy_for(aligned, limits={"active_jobs": 1000}, evaluation={"prompts": "none"})
    running = new_server((disk or tmp_path) / "server", policy, url).start()
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


def test_no_job_is_lost_and_none_is_spoiled(victim: Server, database: Postgres | None, disk: Path | None) -> None:
    chance = random.Random(JOBS)
    client = victim.client("faults", max_retries=0)
    file = client.files.create(file=("a.jsonl", rows(10)), purpose="fine-tune").id
    jobs = [
        client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=5, hyperparameters=HYPERPARAMETERS).id
        for _ in range(JOBS)
    ]
    kills = ["worker", "server"] + (["database"] if database else []) + (["disk"] if disk else [])
    done: Counter[str] = Counter()

    def statuses() -> list[str]:
        found = patient(lambda: {job.id: job.status for job in client.fine_tuning.jobs.list(limit=100)})
        return [found[job] for job in jobs]

    def kill(what: str) -> None:
        if what == "worker":
            worker = training_worker(victim)
            if worker is None:
                # It was killed a moment ago, and no other is there yet.
                return
            worker.kill()
        elif what == "server":
            victim.kill()
            victim.start()
        elif what == "disk" and disk is not None:
            filler = fill(disk)
            time.sleep(2 * chance.random())
            filler.unlink()
        elif database is not None:
            database.stop(signal.SIGKILL)
            time.sleep(chance.random())
            database.start()
        done[what] += 1

    def in_training() -> bool:
        return any(status == "running" for status in statuses())

    began = time.monotonic()
    for what in kills if JOBS == SHORT else chance.choices(kills, k=JOBS):
        eventually(lambda: in_training() or set(statuses()) <= set(FINISHED), every=0.1)
        if set(statuses()) <= set(FINISHED):
            break
        time.sleep(chance.random() * (0.5 if JOBS == SHORT else 4))
        kill(what)
    eventually(lambda: set(statuses()) <= set(FINISHED), seconds=60 * JOBS, every=0.5)
    seconds = time.monotonic() - began
    runs = {job: victim.folder / "jobs" / job / "run" for job in jobs}
    # However often it was begun anew: the same model, bit for bit.
    adapters = {
        hashlib.sha256(adapter.read_bytes()).hexdigest()
        for run in runs.values()
        if (adapter := run / "adapter" / "adapter_model.safetensors").exists()
    }
    found = {
        "jobs": JOBS,
        "faults": dict(done),
        "seconds": round(seconds),
        "statuses": dict(Counter(statuses())),
        "lost": sum(status not in FINISHED for status in statuses()),
        # Two processes at once would each have written their steps.
        "run twice": sum(steps_written(run) != [*range(1, STEPS + 1)] for run in runs.values()),
        "half-written": len(half_written(victim.folder)),
        # One that a database that was away did not hear of is told at the end.
        "lost events": sum(len({*range(1, STEPS + 1)} - {*metrics(client, job)}) for job in jobs),
        "events told twice": sum(len(told) - len({*told}) for told in (metrics(client, job) for job in jobs)),
        "distinct adapters (all jobs are alike)": len(adapters),
    }
    print(f"\n{json.dumps(found)}")

    assert found["statuses"] == {"succeeded": JOBS}
    assert done.total() >= 2
    assert len(adapters) == 1
    for name in ("lost", "run twice", "half-written", "lost events", "events told twice"):
        assert found[name] == 0, name
    assert len(list(client.models.list())) == JOBS + 1


def steps_written(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
