"""Likelihoods of a real architecture: what is shared or left out must not change a value or a gradient."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM

from antibody.data.collation import PairedCollator, pad_rows, split_batch
from antibody.objectives import likelihood
from antibody.objectives.likelihood import (
    IGNORED,
    compared_likelihoods,
    divergence,
    model_divergences,
    model_likelihoods,
    model_reference,
    shared_prefix,
)
from antibody.objectives.step import Reference

SYSTEM = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
PROMPTS = [[*SYSTEM, 20, 21], [*SYSTEM, 30, 31, 32, 33], [*SYSTEM, 40]]
RESPONSES = [[50, 51, 52, 2], [60, 2], [70, 71, 72, 73, 74, 2]]
REFUSALS = [[80, 81, 2], [82, 83, 84, 85, 86, 2], [87, 2]]


def batch(responses: list[list[int]], prompts: list[list[int]] = PROMPTS) -> dict[str, Tensor]:
    return pad_rows(prompts, responses, pad_token_id=0)


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    torch.manual_seed(1)
    return get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_folder),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    ).to(torch.float64)


def plain_nll(model: Any, rows: dict[str, Tensor]) -> Tensor:
    """Full logits of every row by itself, without padding: the definition, written down."""
    values = []
    for ids, mask, labels in zip(rows["input_ids"], rows["attention_mask"], rows["labels"], strict=True):
        length = int(mask.sum())
        log_probs = model(input_ids=ids[None, :length]).logits[0].log_softmax(-1)
        values.append(-sum(log_probs[t - 1, ids[t]] for t in range(length) if labels[t] != IGNORED))
    return torch.stack(values)


def gradient(model: Any, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def test_divergence_is_that_of_each_row_alone_and_its_gradient_vanishes_where_nothing_moved(model: Any) -> None:
    """All tokens kept, against KL(p ‖ q) by its definition; a few kept give no more."""
    rows = batch(RESPONSES)
    with torch.no_grad():
        whole, few = (model_reference(model, rows, size) for size in (10**6, 4))
    assert gradient(model, model_divergences(model, rows, whole).kl.sum()).abs().max() < 1e-9
    before = [_answer_log_probs(model, *row) for row in zip(PROMPTS, RESPONSES, strict=True)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after = [_answer_log_probs(model, *row) for row in zip(PROMPTS, RESPONSES, strict=True)]
    expected = torch.stack([(p.exp() * (p - q)).sum() for p, q in zip(before, after, strict=True)])
    found = model_divergences(model, rows, whole)
    assert found.tokens.tolist() == [4, 2, 6]
    # The tokens left over, of which there are none, count as one in a million.
    torch.testing.assert_close(found.kl, expected, atol=1e-5, rtol=0)
    lower = model_divergences(model, rows, few).kl
    assert (lower > 0).all()
    assert (lower < found.kl).all()


def test_divergence_counts_what_a_reference_left_out_as_one_outcome() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    q = torch.tensor([[0.2, 0.2, 0.3, 0.3]], dtype=torch.float64)
    kept = Reference(torch.tensor([[0, 1]]), p[:, :2].log())
    expected = 0.5 * math.log(0.5 / 0.2) + 0.3 * math.log(0.3 / 0.2) + 0.2 * math.log(0.2 / 0.6)
    assert divergence(q.log(), kept).tolist() == pytest.approx([expected])


def _answer_log_probs(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """``[R, V]``, before each token of a response."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


def test_values_and_gradients_are_those_of_each_row_alone(model: Any) -> None:
    rows = batch(RESPONSES)
    assert shared_prefix(rows) == len(SYSTEM)
    found = model_likelihoods(model, rows)
    assert found.tokens.tolist() == [4, 2, 6]
    expected = plain_nll(model, rows)
    torch.testing.assert_close(found.nll, expected, atol=1e-10, rtol=0)
    weights = torch.tensor([0.2, 1.0, -0.7], dtype=torch.float64)
    torch.testing.assert_close(
        gradient(model, (weights * found.nll).sum()),
        gradient(model, (weights * plain_nll(model, rows)).sum()),
        # Llama normalises in float32, whatever the weights are in.
        atol=1e-5,
        rtol=0,
    )


def test_a_refusal_on_the_cache_is_a_refusal_by_itself(model: Any) -> None:
    compliance, refusal = compared_likelihoods(model, batch(RESPONSES), batch(REFUSALS))
    torch.testing.assert_close(compliance.nll, plain_nll(model, batch(RESPONSES)), atol=1e-10, rtol=0)
    torch.testing.assert_close(refusal.nll, plain_nll(model, batch(REFUSALS)).detach(), atol=1e-10, rtol=0)
    assert refusal.tokens.tolist() == [3, 6, 2]
    assert not refusal.nll.requires_grad
    torch.testing.assert_close(
        gradient(model, compliance.nll.sum()),
        gradient(model, plain_nll(model, batch(RESPONSES)).sum()),
        atol=1e-5,
        rtol=0,
    )


def test_gradient_checkpointing_gives_the_same_without_a_cache(model: Any) -> None:
    expected = compared_likelihoods(model, batch(RESPONSES), batch(REFUSALS))
    model.train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    assert not likelihood.keeps_a_cache(model)
    found = compared_likelihoods(model, batch(RESPONSES), batch(REFUSALS))
    torch.testing.assert_close(found[0].nll, expected[0].nll)
    torch.testing.assert_close(found[1].nll, expected[1].nll)


def test_soft_capped_logits_and_sliding_windows_are_kept() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=100, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=4, final_logit_softcapping=0.5, attn_implementation="eager",
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    assert not likelihood.keeps_a_cache(model)
    found = compared_likelihoods(model, batch(RESPONSES), batch(REFUSALS))
    torch.testing.assert_close(found[0].nll, plain_nll(model, batch(RESPONSES)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].nll, plain_nll(model, batch(REFUSALS)).detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (PROMPTS, len(SYSTEM)),
        (PROMPTS[:1], 0),
        ([[1, 2, 3], [1, 2, 4]], 0),
        # The prefix ends before the position that predicts the first response token.
        ([SYSTEM, SYSTEM], len(SYSTEM) - 1),
    ],
)
def test_shared_prefix(prompts: list[list[int]], expected: int) -> None:
    assert shared_prefix(batch(RESPONSES[: len(prompts)], prompts)) == expected


def test_no_tensor_holds_logits_of_positions_that_are_not_scored(model: Any) -> None:
    class WidestLogits(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = operation(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, tuple) else (made,):
                # The head's weight is transposed.
                is_logits = isinstance(tensor, Tensor) and tensor.shape[-1:] == (model.config.vocab_size,)
                if is_logits and operation is not torch.ops.aten.t.default:
                    self.rows = max(self.rows, tensor.numel() // model.config.vocab_size)
            return made

    # Longer prompts and more of them, the same number of response tokens.
    for prompts, responses in [
        (PROMPTS, RESPONSES),
        ([[*prompt, *range(100, 160)] for prompt in PROMPTS * 2], [r[: len(r) // 2] for r in RESPONSES * 2]),
    ]:
        rows = batch(responses, prompts)
        scored = int((rows["labels"] != IGNORED).sum())
        with WidestLogits() as widest:
            model_likelihoods(model, rows).nll.sum().backward()
        assert widest.rows == scored


def test_the_hook_is_gone_afterwards(model: Any) -> None:
    rows = batch(RESPONSES)
    model_likelihoods(model, rows)
    assert model(input_ids=rows["input_ids"]).logits.shape[:2] == rows["input_ids"].shape


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_row_that_stands_in_counts_for_nothing(tiny_model: LlamaForCausalLM, checkpointing: bool) -> None:
    """Its likelihood is that of no token, and its backward gives every parameter a gradient of zero."""
    if checkpointing:
        tiny_model.gradient_checkpointing_enable()
    tiny_model.train()
    batch = PairedCollator(pad_token_id=0)([])
    rows, refusals = (split_batch(batch, None, prefix)[0] for prefix in ("", "refusal_"))
    compliance, refusal = compared_likelihoods(tiny_model, rows, refusals)
    for found in (compliance, refusal):
        assert (found.nll.tolist(), found.tokens.tolist()) == ([0.0], [0])
    compliance.nll.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in tiny_model.parameters())
