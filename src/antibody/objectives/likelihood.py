"""From a batch to the likelihood of each row's response, without work that cannot change it.

Only the positions that predict a response token go through the LM head: its input is gathered by a hook, so what the
architecture does to its logits afterwards (scaling, soft-capping) still happens. And where all rows of a batch begin
alike, as chats do with a system prompt, that prefix is computed once and its keys and values are shared, gradients
included. Both are exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from antibody.objectives.step import Batch, RowLikelihoods

IGNORED = -100

# A shorter prefix costs more in bookkeeping than it saves. ASSUMPTION.
SHORTEST_SHARED_PREFIX = 8


def model_likelihoods(model: Any, batch: Batch) -> RowLikelihoods:
    """``NLL(y|x) = -Σ_t log π(y_t | x, y_<t)`` of every row under a causal language model, with its token count.

    Args:
        model: A `transformers` or PEFT causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``, padded on the right; labels are -100
            where no loss counts, and so in the first column.

    Returns:
        Per-row values. The reduction over rows is the objective's.
    """
    input_ids, attention_mask, targets = batch["input_ids"], batch["attention_mask"], batch["labels"][:, 1:]
    # Position t predicts token t + 1; the last position predicts nothing.
    scored = functional.pad(targets != IGNORED, (0, 1))
    shared = shared_prefix(batch) if _may_share_prefix(model) else 0
    cache = None
    if shared:
        with _scored_positions(model, torch.zeros_like(scored[:1, :shared])):
            cache = model(input_ids=input_ids[:1, :shared], use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(input_ids))
    with _scored_positions(model, scored[:, shared:]):
        logits = model(
            input_ids=input_ids[:, shared:],
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits[0]
    return row_likelihoods(logits, targets)


def row_likelihoods(logits: Tensor, targets: Tensor) -> RowLikelihoods:
    """Sums the tokens' cross-entropies by row.

    Args:
        logits: ``[K, V]``, one for each target that counts, row by row. The sum is made in float32 at least.
        targets: ``[B, T]``, -100 where none counts.
    """
    scored = targets != IGNORED
    precise = logits if logits.dtype.itemsize >= 4 else logits.float()
    token_nll = functional.cross_entropy(precise, targets[scored], reduction="none")
    by_row = token_nll.new_zeros(scored.shape).masked_scatter(scored, token_nll)
    return RowLikelihoods(nll=by_row.sum(dim=1), tokens=scored.sum(dim=1))


def shared_prefix(batch: Batch) -> int:
    """Number of leading tokens that all rows share and that no scored position lies in; 0 where it does not pay."""
    input_ids, labels = batch["input_ids"], batch["labels"]
    if len(input_ids) == 1:
        return 0
    alike = (input_ids == input_ids[:1]).all(dim=0) & (batch["attention_mask"] == 1).all(dim=0)
    # The position before a row's first response token is scored.
    free = (labels == IGNORED).all(dim=0)
    free = free & functional.pad(free[1:], (0, 1))
    length = int((alike & free).long().cumprod(dim=0).sum())
    return length if length >= SHORTEST_SHARED_PREFIX else 0


def _may_share_prefix(model: Any) -> bool:
    """Whether the model keeps keys and values: not while it recomputes activations, nor with a recurrent state."""
    architecture = model.get_base_model() if hasattr(model, "get_base_model") else model
    checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in architecture.modules())
    return not checkpointing and not getattr(architecture, "_is_stateful", False)


@contextmanager
def _scored_positions(model: Any, scored: Tensor) -> Iterator[None]:
    """While open, the LM head sees only the marked positions of ``[B, T]``, and logits are ``[1, K, V]``."""

    def gather(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = arguments
        return (hidden[scored].unsqueeze(0), *rest)

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()
