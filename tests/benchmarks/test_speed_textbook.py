"""The same mathematics: our trainers end where the algorithm, written plainly, ends."""

from pathlib import Path
from typing import Any

import pytest
import torch

from antibody.benchmarks.speed.contenders import STAGES, Case, Stage, build, load, rows_of
from antibody.benchmarks.speed.settings import SpeedSettings

STEPS = 20


def adapter(trainer: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def trained(case: Case, settings: SpeedSettings, output: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The adapter before and after."""
    loaded = load(settings)
    rows = rows_of(case, loaded.tokenizer, STEPS, settings)
    trainer = build(case, loaded, rows, steps=STEPS, output=output, settings=settings)
    # Larger than any preset's, so that twenty steps go far.
    trainer.args.learning_rate = 3e-3
    before = adapter(trainer)
    trainer.train()
    assert trainer.state.global_step == STEPS
    return before, adapter(trainer)


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_after_20_steps_equal_the_textbook_s(stage: Stage, tiny_model_folder: Path, tmp_path: Path) -> None:
    """In float32, to 1e-4, whole and in micro-batches; undefended training ends elsewhere, so the defence matters."""
    settings = SpeedSettings(model=str(tiny_model_folder), dtype="float32", device="cpu", max_length=700, lora_r=4)
    before, expected = trained(Case(stage, "short", "textbook", 8, None, 4), settings, tmp_path)
    for micro_batch_size in (None, 3):
        _, found = trained(Case(stage, "short", "antibody", 8, micro_batch_size, 4), settings, tmp_path)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    _, undefended = trained(Case(stage, "short", "hf_trainer", 8, None, 4), settings, tmp_path)
    assert (expected - before).abs().max() > 1e-2
    assert (expected - undefended).abs().max() > 1e-3


def test_hf_trainer_and_trl_make_the_same_step(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Both undefended contenders see the same tokens, masked alike."""
    settings = SpeedSettings(model=str(tiny_model_folder), dtype="float32", device="cpu", max_length=700, lora_r=4)
    for stage in STAGES:
        cases = [Case(stage, "short", name, 4, None, 4) for name in ("hf_trainer", "trl")]
        (_, first), (_, second) = (trained(case, settings, tmp_path) for case in cases)
        torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
