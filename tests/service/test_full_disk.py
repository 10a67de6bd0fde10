"""A disk that is really full: a small one is mounted where the service keeps files and runs."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from safetensors import safe_open
from service.conftest import Server, eventually, finished, new_server, policy_for, rows

MEGABYTES = 96
STEPS = 60


@pytest.fixture
def small_disk() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="antibody-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("a small disk cannot be mounted here: that takes root, and a kernel that lets it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def server_there(aligned: Path, small_disk: Path, tmp_path: Path) -> Iterator[Server]:
    """Its blobs, runs and temporary files lie on the small disk, its database does not."""
    policy = policy_for(aligned, evaluation={"prompts": "none"})
    running = new_server(small_disk / "service", policy, f"sqlite:///{tmp_path / 'service.sqlite'}")
    running.environment["TMPDIR"] = str(small_disk)
    yield running.start()
    running.stop()


def fill(disk: Path) -> Path:
    """To the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        piece = bytes(2**20)
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]
    return filler


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def messages(client: OpenAI, job: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job, limit=100)]


def assert_whole(service: Path) -> None:
    """No file of a run, no blob and no spool is half there."""
    assert files_below(service / "spool") == []
    for blob in files_below(service / "blobs"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for path in files_below(service / "jobs"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            assert [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                assert tensors.keys()
        assert not path.name.startswith(".") or path.name == ".lock"


def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(server_there: Server, small_disk: Path) -> None:
    client = server_there.client("full", max_retries=0)
    hyperparameters: Any = {"n_epochs": STEPS // 5, "batch_size": 2}

    def send(content: bytes) -> str:
        return client.files.create(file=("a.jsonl", content), purpose="fine-tune").id

    def create(file: str) -> str:
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=file, seed=1, hyperparameters=hyperparameters
        )
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
    assert_whole(server_there.folder)
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
    assert_whole(server_there.folder)
    # As if nothing had been.
    adapters = {
        (server_there.folder / "jobs" / each / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
        for each in (job, interrupted)
    }
    assert len(adapters) == 1
    steps = [event.data["step"] for event in client.fine_tuning.jobs.list_events(interrupted, limit=100)
             if event.type == "metrics"]  # fmt: skip
    assert sorted(steps) == list(range(1, STEPS + 1))
