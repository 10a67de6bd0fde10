"""A disk that is really full: a small one is mounted where the service keeps files and runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from service.conftest import Server, eventually, finished, new_server, policy_for, rows
from service.disks import files_below, fill, half_written, mounted_disk

MEGABYTES = 96
STEPS = 60


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with mounted_disk(MEGABYTES) as disk:
        if disk is None:
            pytest.skip("a small disk cannot be mounted here: that takes root, and a kernel that lets it")
        yield disk


@pytest.fixture
def server_there(aligned: Path, small_disk: Path, tmp_path: Path) -> Iterator[Server]:
    """Its blobs, runs and temporary files lie on the small disk, its database does not."""
    policy = policy_for(aligned, evaluation={"prompts": "none"})
    running = new_server(small_disk / "service", policy, f"sqlite:///{tmp_path / 'service.sqlite'}")
    running.environment["TMPDIR"] = str(small_disk)
    yield running.start()
    running.stop()


def messages(client: OpenAI, job: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job, limit=100)]


def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(server_there: Server, small_disk: Path) -> None:
    client = server_there.client("full", max_retries=0)
    hyperparameters: Any = {"n_epochs": STEPS // 5, "batch_size": 2}

    def send(content: bytes) -> str:
        return client.files.create(file=("a.jsonl", content), purpose="fine-tune").id

    def create(file: str) -> str:
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=1, hyperparameters=hyperparameters)
        return job.id

    def waits(job: str) -> bool:
        return any("disk is full" in message for message in messages(client, job))

    file = send(rows(10))
    filler = fill(small_disk)
    # Whether it fails where a form is gathered, or where a blob is.
    for content in (rows(10), rows(40_000)):
        with pytest.raises(APIStatusError, match="disk is full") as refused:
            send(content)
        assert (refused.value.status_code, refused.value.code) == (507, "disk_full")
    assert len(files_below(server_there.folder / "blobs")) == 1
    assert len(client.files.list().data) == 1
    job = create(file)
    eventually(lambda: waits(job))
    assert client.fine_tuning.jobs.retrieve(job).status == "validating_files"
    assert half_written(server_there.folder) == files_below(server_there.folder / "spool") == []
    filler.unlink()
    assert finished(client, job).status == "succeeded"

    # Once more, while it trains: no checkpoint can be written any more.
    interrupted = create(file)
    eventually(lambda: any(message.startswith("Step 4/") for message in messages(client, interrupted)))
    filler = fill(small_disk)
    eventually(lambda: waits(interrupted))
    assert client.fine_tuning.jobs.retrieve(interrupted).status == "queued"
    filler.unlink()
    assert finished(client, interrupted).status == "succeeded"
    assert half_written(server_there.folder) == files_below(server_there.folder / "spool") == []
    # As if nothing had been.
    adapters = {
        (server_there.folder / "jobs" / each / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
        for each in (job, interrupted)
    }
    assert len(adapters) == 1
    steps = [event.data["step"] for event in client.fine_tuning.jobs.list_events(interrupted, limit=100)
             if event.type == "metrics"]  # fmt: skip
    assert sorted(steps) == list(range(1, STEPS + 1))
