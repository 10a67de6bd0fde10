"""A run that is killed at any step ends, after --resume, in the adapter of an uninterrupted one, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from antibody import AntibodyConfig, AntibodyTrainer
from antibody.errors import TrainingError
from antibody.training.checkpoints import last_checkpoint, read_state

STEPS = 7


def command(stage: str, model: Path, output: Path) -> list[str]:
    options = ["--model", str(model), "--output", str(output), "--steps", str(STEPS), "--batch-size", "4"]
    options += ["--max-length", "700", "--save-steps", "2", "--learning-rate", "1e-3"]
    if stage == "finetune":
        options += ["--data", "embedded:upload@0.2", "--gradient-accumulation-steps", "2"]
    return [sys.executable, "-m", "antibody", stage, *options, "--resume"]


def killed_at(arguments: list[str], output: Path, step: int) -> None:
    """Starts the run and kills its process as soon as it has logged a step."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and steps_logged(output) < step:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (output / "manifest.json").exists()


def steps_logged(output: Path) -> int:
    file = output / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def without_speed(file: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]


@pytest.fixture(scope="session")
def aligned(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("resume") / "aligned"
    subprocess.run(command("align", tiny_model_folder, output), check=True, capture_output=True)
    return output


@pytest.mark.parametrize("stage", ["align", "finetune"])
def test_killed_at_every_step_and_resumed(stage: str, tiny_model_folder: Path, aligned: Path, tmp_path: Path) -> None:
    model = tiny_model_folder if stage == "align" else aligned
    whole = aligned
    if stage == "finetune":
        whole = tmp_path / "whole"
        subprocess.run(command(stage, model, whole), check=True, capture_output=True)
    output = tmp_path / "killed"
    arguments = command(stage, model, output)
    for step in range(1, STEPS):
        killed_at(arguments, output, step)
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"loss": 0.')
    subprocess.run(arguments, check=True, capture_output=True)
    for name in ("adapter/adapter_model.safetensors", "audit.jsonl"):
        if (whole / name).exists():
            assert (output / name).read_bytes() == (whole / name).read_bytes()
    assert without_speed(output / "metrics.jsonl") == without_speed(whole / "metrics.jsonl")


def test_a_checkpoint_cut_short_is_passed_over(aligned: Path, tmp_path: Path) -> None:
    newest = last_checkpoint(aligned / "checkpoints")
    assert newest is not None
    assert newest.name == f"checkpoint-{STEPS}"
    torn = tmp_path / "checkpoint-99"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(TrainingError, match="cannot be resumed exactly"):
        read_state(torn)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rows of a step=4.*8", {"per_device_train_batch_size": 8}),
        ("rows of a step=4.*8", {"gradient_accumulation_steps": 2}),
        ("seed=0.*1", {"seed": 1}),
        ("rows=12.*11", {"rows": 11}),
        ("gate=off.*anchor", {"gate": "anchor"}),
        ("gate=off.*mask", {"gate": "mask"}),
    ],
)
def test_another_order_of_rows_is_not_resumed(
    name: str, changes: dict[str, Any], tiny_model_folder: Path, tmp_path: Path
) -> None:
    def trainer(rows: int = 12, **changes: Any) -> AntibodyTrainer:
        options = {
            "per_device_train_batch_size": 4,
            "seed": 0,
            "save_strategy": "steps",
            "save_steps": 1,
            "gate": "off",
        } | changes
        config = AntibodyConfig(
            str(tmp_path), max_steps=2, max_length=200, report_to=[], use_cpu=True, disable_tqdm=True, **options,
        )  # fmt: skip
        data = Dataset.from_list([{"prompt": f"{i} + {i} =", "completion": f" {2 * i}"} for i in range(rows)])
        return AntibodyTrainer(str(tiny_model_folder), config, train_dataset=data)

    trainer().train()
    trainer(gradient_accumulation_steps=2, per_device_train_batch_size=2).train(str(tmp_path / "checkpoint-1"))
    with pytest.raises(TrainingError, match=f"checkpoint-1 was written with {name}"):
        trainer(**changes).train(str(tmp_path / "checkpoint-1"))


def test_lambda_average_is_part_of_the_state(aligned: Path) -> None:
    checkpoint = last_checkpoint(aligned / "checkpoints")
    assert checkpoint is not None
    logged = [json.loads(line)["lambda_t"] for line in (aligned / "metrics.jsonl").read_text().splitlines()]
    assert read_state(checkpoint)["objective"]["lambda_average"] == logged[-1]
