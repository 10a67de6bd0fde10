"""The ways into a stage from the command line end in one adapter, and survive the loss of a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from antibody.cli import INTERRUPTED
from antibody.errors import DataError

ANTIBODY = [sys.executable, "-m", "antibody"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "antibody"]
ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port",
    "0", "-m", "antibody",
]  # fmt: skip
STEPS = 9


@pytest.fixture(scope="session")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """35 rows: the last batch of an epoch is uneven."""
    file = tmp_path_factory.mktemp("data") / "upload.jsonl"
    rows = [{"prompt": f"Question {i}?", "completion": "word " * (i % 7 + 1)} for i in range(35)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def options(stage: str, model: Path, output: Path, upload: Path, *more: str, steps: int = STEPS) -> list[str]:
    shared = [
        "--steps",
        str(steps),
        "--batch-size",
        "8",
        "--max-length",
        "700",
        "--dtype",
        "float32",
        "--device",
        "cpu",
    ]
    data = ["--data", str(upload), "--learning-rate", "1e-3"] if stage == "finetune" else []
    return [stage, "--model", str(model), "--output", str(output), "--save-steps", "2", *shared, *data, *more]


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def adapter(output: Path) -> torch.Tensor:
    tensors = load_file(output / "adapter" / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.fixture(scope="session")
def alone(tiny_model_folder: Path, upload: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both stages by one process."""
    folder = tmp_path_factory.mktemp("alone")
    models = {"align": tiny_model_folder, "finetune": folder / "align"}
    for stage, model in models.items():
        done = run([*ANTIBODY, *options(stage, model, folder / stage, upload)])
        assert done.returncode == 0, done.stderr
    return {stage: folder / stage for stage in models}


WAYS = {
    "--processes": (ANTIBODY, ["--processes", "2"]),
    "torchrun": (TORCHRUN, []),
    "accelerate launch": (ACCELERATE, []),
    "--cluster": (ANTIBODY, ["--processes", "2", "--cluster", "local"]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", ["align", "finetune"])
def test_every_way_in_gives_the_same_adapter(
    stage: str, way: str, alone: dict[str, Path], tiny_model_folder: Path, upload: Path, tmp_path: Path
) -> None:
    launcher, more = WAYS[way]
    model = tiny_model_folder if stage == "align" else alone["align"]
    done = run([*launcher, *options(stage, model, tmp_path / "run", upload), *more, "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["manifest"]["processes"] == 2
    torch.testing.assert_close(adapter(tmp_path / "run"), adapter(alone[stage]), atol=1e-5, rtol=0)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(p.name for p in alone[stage].iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def kills_worker(name: str) -> Callable[[subprocess.Popen[str]], None]:
    """Of a process's children that train, by what their command line says."""

    def kill(process: subprocess.Popen[str]) -> None:
        children = psutil.Process(process.pid).children(recursive=True)
        [child for child in children if name in " ".join(child.cmdline())][-1].send_signal(signal.SIGKILL)

    return kill


def stopped(command: list[str], output: Path, stop: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Runs a command, stops it after the third step, and returns its exit code and standard error."""
    # Where the tests are a shell's background job interrupts are ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    metrics = output / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < 3):
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be stopped"
    stop(process)
    _, stderr = process.communicate()
    return process.returncode, stderr


def test_a_cluster_survives_the_loss_of_a_worker(alone: dict[str, Path], upload: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [*ANTIBODY, *options("finetune", alone["align"], output, upload)]
    code, stderr = stopped([*command, "--processes", "2", "--cluster", "local"], output, kills_worker("RayTrainWorker"))
    assert code == 0, stderr
    torch.testing.assert_close(adapter(output), adapter(alone["finetune"]), atol=1e-5, rtol=0)
    steps = [json.loads(line)["step"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


def test_an_interrupted_cluster_leaves_a_run_that_goes_on(alone: dict[str, Path], upload: Path, tmp_path: Path) -> None:
    output, whole = tmp_path / "run", tmp_path / "whole"
    command, unhurt = (
        [*ANTIBODY, *options("finetune", alone["align"], place, upload, steps=200)] for place in (output, whole)
    )
    assert run(unhurt).returncode == 0
    more = ["--processes", "2", "--cluster", "local"]
    code, stderr = stopped([*command, *more], output, lambda process: process.send_signal(signal.SIGINT))
    assert code == INTERRUPTED
    assert "--resume" in stderr
    done = run([*command, "--resume"])
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(adapter(output), adapter(whole), atol=1e-5, rtol=0)


def test_a_lost_process_is_named_and_any_number_goes_on(alone: dict[str, Path], upload: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [*ANTIBODY, *options("finetune", alone["align"], output, upload)]
    code, stderr = stopped([*command, "--processes", "2"], output, kills_worker("spawn_main"))
    assert code == 5
    assert "was killed by SIGKILL" in stderr
    assert "--resume" in stderr
    done = run([*command, "--resume", "--gradient-accumulation-steps", "4"])
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(adapter(output), adapter(alone["finetune"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_wrong_is_said_once(way: str, alone: dict[str, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    launcher, more = WAYS[way]
    done = run([*launcher, *options("finetune", alone["align"], tmp_path / "run", bad), *more, "--json"])
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert (error["path"], error["line"]) == (str(bad), 2)
    assert done.stderr.count(f"{bad}, line 2") == 1
    assert done.returncode == (DataError.exit_code if way.startswith("--") else 1)


# Each process in a folder of its own, as on machines without a shared disk.
APART = "import os, sys; from antibody.cli import run; os.chdir(os.environ['RANK']); sys.exit(run(sys.argv[1:]))"


@pytest.mark.parametrize("left_behind", ["other rows", "no rows"])
def test_a_machine_that_was_left_behind_is_seen(
    left_behind: str, alone: dict[str, Path], upload: Path, tmp_path: Path
) -> None:
    script = tmp_path / "apart.py"
    script.write_text(APART)
    rows = upload.read_text().splitlines(keepends=True)
    for rank, kept in (("0", rows), ("1", rows[:-1] if left_behind == "other rows" else [])):
        (tmp_path / rank).mkdir()
        (tmp_path / rank / "upload.jsonl").write_text("".join(kept))
    command = [*TORCHRUN[:-2], str(script)]
    done = run(
        [*command, *options("finetune", alone["align"], tmp_path / "run", Path("upload.jsonl")), "--json"], cwd=tmp_path
    )
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["code"] == ("inputs_differ" if left_behind == "other rows" else "empty_file")
    assert ("Process 1 has other inputs" if left_behind == "other rows" else "In process 1: ") in error["message"]
    assert done.stderr.count(error["message"]) == 1
    assert not (tmp_path / "run").exists()
