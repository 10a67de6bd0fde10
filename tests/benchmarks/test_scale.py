"""The cost of a step on machines that are not at hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from antibody.benchmarks.scale import H100, SHAPES, Setup, Shape, cost, flops, memory, plans, sent, table
from antibody.models.lora import LoraSettings, new_adapter

SMALL = Shape(layers=2, hidden=32, inner=64, heads=4, kv_heads=2, vocabulary=100)


def test_parameters_are_those_of_the_architecture() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                vocab_size=100,
            )
        )  # fmt: skip
        assert model.num_parameters() == SMALL.parameters
        names = ("q_proj", "k_proj", "v_proj")
        adapted = new_adapter(model, LoraSettings(r=3, alpha=3, target_modules=names))
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == SMALL.adapter(3)
    assert SHAPES["7B"].parameters == 6_738_415_616


def test_the_defence_costs_what_the_passes_say() -> None:
    setup = Setup(SHAPES["7B"], 32, sharded=False, gpus=8)
    assert 1.0 < flops(setup, "finetune") / flops(setup, "sft") < 1.05
    assert 3 < flops(setup, "align") / flops(setup, "sft") < 4
    assert sent(setup, "finetune") == sent(setup, "sft") == pytest.approx(2 * 7 / 8 * 4 * setup.trainable)
    assert sent(setup, "align") == 4 * sent(setup, "sft")
    assert memory(setup, "align") - memory(setup, "sft") == 8 * setup.trainable
    sharded = replace(setup, sharded=True, rank=None, micro_rows=8)
    assert sent(sharded, "finetune") / sent(sharded, "sft") == pytest.approx(10 / 8)
    assert memory(sharded, "sft") < memory(replace(sharded, gpus=4), "sft")


def test_one_process_sends_nothing_and_time_is_bounded_both_ways() -> None:
    assert all(sent(replace(setup, gpus=1), "align") == 0 for _, setup in plans())
    for _, setup in plans():
        best, worst = cost(setup, "align").seconds(H100, setup.gpus)
        assert best <= worst <= 2 * best
    assert len(table().splitlines()) == 2 + 3 * len(plans())


def test_the_documented_table_is_the_calculated_one() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
