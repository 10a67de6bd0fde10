"""What is seen and moved inside a real architecture."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from antibody.data.collation import pad_rows
from antibody.errors import ModelError
from antibody.objectives.likelihood import IGNORED, model_likelihoods, model_token_likelihoods
from antibody.training.blocks import attended, by_layer

PROMPTS = [[1, 9, 10, 11, 12, 13, 14, 15, 16, 17], [1, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21]]
BATCH = pad_rows(PROMPTS, [[30, 31, 32], [40, 2]], 0)


@pytest.fixture
def model(tiny_model: Any) -> Any:
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_model, adapter).double()


def test_tokens_add_up_to_rows(model: Any) -> None:
    rows, tokens = model_likelihoods(model, BATCH), model_token_likelihoods(model, BATCH)
    torch.testing.assert_close(tokens.nll.sum(dim=1), rows.nll)
    assert tokens.present.tolist() == [[True, True, True], [True, True, False]]
    log_probs = model(input_ids=BATCH["input_ids"], attention_mask=BATCH["attention_mask"]).logits.log_softmax(dim=-1)
    expected = [-log_probs[0, 9, 30], -log_probs[0, 10, 31], -log_probs[0, 11, 32]]
    torch.testing.assert_close(tokens.nll[0], torch.stack(expected))


def test_unmoved_attention_changes_nothing(model: Any) -> None:
    likelihoods, outputs = attended(model, BATCH, None)
    torch.testing.assert_close(likelihoods.nll, model_likelihoods(model, BATCH).nll)
    assert [tuple(output.shape) for output in outputs] == [(2, 12, 32)] * 2
    assert not model.get_decoder().layers[0].self_attn._forward_hooks


def test_the_loss_follows_moved_attention(model: Any) -> None:
    """f(e + ε g) − f(e − ε g) = 2 ε ‖g‖² + O(ε³), over both layers together."""
    likelihoods, outputs = attended(model, BATCH, None)
    gradients = torch.autograd.grad(likelihoods.nll.sum(), outputs)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    moved = [
        attended(model, BATCH, [sign * 1e-3 * gradient for gradient in gradients])[0].nll.sum() for sign in (1, -1)
    ]
    squares = sum(gradient.square().sum() for gradient in gradients)
    # Llama normalises in float32.
    torch.testing.assert_close((moved[0] - moved[1]) / 2e-3, squares, rtol=2e-3, atol=0)


def test_where_nothing_is_trained_below_there_is_a_gradient_all_the_same(model: Any) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name and "lora" in name)
    likelihoods, outputs = attended(model, BATCH, None)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(likelihoods.nll.sum(), outputs))


def test_the_head_reads_every_depth(model: Any) -> None:
    """`transformers` gives the hidden states of all depths, the last of them normalised."""
    states = by_layer(model, BATCH)
    output = model(
        input_ids=BATCH["input_ids"], attention_mask=BATCH["attention_mask"], output_hidden_states=True
    ).hidden_states
    norm, head = model.get_decoder().norm, model.get_output_embeddings()
    targets = BATCH["labels"][:, 1:]
    nll = [
        torch.nn.functional.cross_entropy(
            head(depth)[:, :-1].transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        ).sum(dim=1)
        for depth in [*(norm(depth) for depth in output[:-1]), output[-1]]
    ]
    assert len(nll) == 3
    torch.testing.assert_close(states.likelihoods.nll, torch.stack(nll).mean(dim=0))
    assert [tuple(hidden.shape) for hidden in states.hidden] == [(2, 12, 32)] * 2
    assert states.answered.sum(dim=1).tolist() == [2, 1]
    assert not model.get_decoder().layers[0]._forward_pre_hooks


def test_a_row_is_seen_alike_whatever_it_is_padded_to(model: Any) -> None:
    """Next to a longer row, its last token is fed as well."""
    wide = pad_rows([*PROMPTS, PROMPTS[0]], [[30, 31, 32], [40, 2], [50, 51, 52, 53, 54]], 0)
    alone, together = by_layer(model, BATCH), by_layer(model, wide)
    assert together.answered[:2, :12].equal(alone.answered)
    assert not together.answered[:2, 12:].any()
    for hidden, expected in zip(together.hidden, alone.hidden, strict=True):
        torch.testing.assert_close(hidden[:2, :12][alone.answered], expected[alone.answered])
    torch.testing.assert_close(together.likelihoods.nll[:2], alone.likelihoods.nll)


def test_an_unknown_architecture_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=50))
    with pytest.raises(ModelError, match="list of layers"):
        attended(model, BATCH, None)
