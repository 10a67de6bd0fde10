"""The floor's arithmetic, counted by hand and by PyTorch's own counter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from antibody.benchmarks.speed.contenders import Case, _with_own_adapter, load
from antibody.benchmarks.speed.floor import (
    Positions,
    Weights,
    backward,
    forward,
    matmul_rate,
    positions,
    step_flops,
    weights_of,
)
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.training.presets import PRESETS

ROWS = [
    {"prompt_ids": [1, 2, 3], "response_ids": [7, 8], "refusal_ids": [9, 9, 8]},
    {"prompt_ids": [1, 2, 4], "response_ids": [7, 8], "refusal_ids": [7, 9, 8]},
]
WEIGHTS = Weights(linear=1000, adapter=10, head=100, attention=1)


def test_shared_positions_count_once() -> None:
    """1 2 3 7 and 1 2 4 7: 1 and 2 are shared; depths 1 2 3 4 and 3 4. The last token predicts nothing."""
    assert positions(ROWS, ["response_ids"]) == Positions(number=6, depth=17, scored=4)
    # Refusals add 9 9 after the first prompt; after the second its 7 is shared and 9 is new.
    assert positions(ROWS, ["response_ids", "refusal_ids"]) == Positions(number=9, depth=17 + 4 + 5 + 5, scored=10)


def test_steps_by_hand() -> None:
    sft = 2 * 1010 * 6 + 4 * 17 + 200 * 4 + (2 * 1000 + 4 * 10) * 6 + 8 * 17 + 200 * 4
    assert step_flops(WEIGHTS, ROWS, None, defended=False) == sft
    refusals = 2 * 1010 * 3 + 4 * 14 + 200 * 6
    assert step_flops(WEIGHTS, ROWS, None, defended=True) == sft + refusals
    alone, both = positions(ROWS, ["response_ids"]), positions(ROWS, ["response_ids", "refusal_ids"])
    aligned = step_flops(WEIGHTS, ROWS, ROWS, defended=True)
    # At θ the same rows twice share their forward pass, but not the head, and not the backward pass.
    at_theta = forward(WEIGHTS, alone._replace(scored=8)) + 2 * backward(WEIGHTS, alone)
    at_attacked = (
        forward(WEIGHTS, both) + backward(WEIGHTS, alone) + backward(WEIGHTS, positions(ROWS, ["refusal_ids"]))
    )
    assert aligned == at_theta + at_attacked


def test_a_forward_pass_is_what_pytorch_counts(tiny_model_folder: Path) -> None:
    """One row alone, whole attention: a causal kernel needs half of that product, which is what depths count."""
    settings = SpeedSettings(model=str(tiny_model_folder), dtype="float32", device="cpu")
    case = Case("finetune", "short", "antibody", 2)
    loaded = load(settings)
    # PyTorch's counter knows nothing of the CPU's fused kernel.
    loaded.model.set_attn_implementation("eager")
    model: Any = _with_own_adapter(loaded.model, case, PRESETS["paper"], settings)
    weights = weights_of(model)
    assert weights.adapter == sum(p.numel() for p in model.parameters() if p.requires_grad)
    length = 12
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(input_ids=torch.arange(length)[None] + 5)
    counted = counter.get_total_flops()
    full = forward(weights, Positions(number=length, depth=length * length, scored=length))
    # The rotation's outer product is the only one left out.
    assert counted == pytest.approx(full, rel=0.01)


def test_the_matmul_rate_is_a_rate(tiny_model_folder: Path) -> None:
    settings = SpeedSettings(model=str(tiny_model_folder), dtype="float32", device="cpu")
    assert matmul_rate(load(settings).model, lambda: None, seconds=0.01) > 0
