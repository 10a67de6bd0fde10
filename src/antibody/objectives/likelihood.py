"""From a batch to the likelihood of each row's response, without work that cannot change it.

Only the positions that predict a response token go through the LM head: its input is gathered by a hook, so what the
architecture does to its logits afterwards (scaling, soft-capping) still happens. Where all rows of a batch begin alike,
as chats do with a system prompt, that prefix is computed once and its keys and values are shared, gradients included.
And a refusal of the same prompt is scored on the keys and values that the response's own forward pass left. All exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

from antibody.objectives.step import Batch, Reference, RowDivergences, RowLikelihoods, TokenLikelihoods

IGNORED = -100

# What is left of a distribution beside its likeliest tokens counts as no less, because its logarithm is taken.
# ASSUMPTION: a millionth is nothing.
LEAST_REST = 1e-6

# A shorter prefix costs more in bookkeeping than it saves. ASSUMPTION.
SHORTEST_SHARED_PREFIX = 8


def model_likelihoods(model: Any, batch: Batch, *, share_prefix: bool = True) -> RowLikelihoods:
    """``NLL(y|x) = -Σ_t log π(y_t | x, y_<t)`` of every row under a causal language model, with its token count.

    Args:
        model: A `transformers` or PEFT causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``, padded on the right; labels are -100
            where no loss counts, and so in the first column.
        share_prefix: Compute a common prefix once; not where hidden states are looked at row by row.

    Returns:
        Per-row values. The reduction over rows is the objective's.
    """
    logits, targets, _ = _forward(model, batch, share_prefix=share_prefix)
    return row_likelihoods(logits, targets)


def model_token_likelihoods(model: Any, batch: Batch) -> TokenLikelihoods:
    """As `model_likelihoods`, token by token."""
    logits, targets, _ = _forward(model, batch)
    tokens = (targets != IGNORED).sum(dim=1)
    present = torch.arange(int(tokens.max()), device=tokens.device) < tokens.unsqueeze(1)
    found = token_nll(logits, targets)
    return TokenLikelihoods(nll=found.new_zeros(present.shape).masked_scatter(present, found), present=present)


def model_reference(model: Any, batch: Batch, size: int) -> Reference:
    """What a model expects at each position before a response token: its ``size`` likeliest tokens, or all it has."""
    logits, _, _ = _forward(model, batch)
    likeliest, tokens = logits.topk(min(size, logits.shape[1]), dim=1)
    return Reference(tokens, _precise(likeliest) - _precise(logits).logsumexp(dim=1, keepdim=True))


def model_divergences(model: Any, batch: Batch, reference: Reference) -> RowDivergences:
    """`divergence` of every row under a causal language model, summed over its response tokens, with their count."""
    logits, targets, _ = _forward(model, batch)
    return RowDivergences(*_by_row(divergence(logits, reference), targets))


def divergence(logits: Tensor, reference: Reference) -> Tensor:
    """``KL(p ‖ q)`` at each position, in nats: how far a model's q has gone from the reference's p.

    Over k + 1 outcomes: the tokens that the reference kept, and all others together. That is no more than the
    divergence over the whole vocabulary, but for the floor of the rest, and 0 where q is p.

    Args:
        logits: ``[K, V]``, of the model.
        reference: For the same K positions.

    Returns:
        ``[K]``.
    """
    precise = _precise(logits)
    p, log_p = reference.log_probs.exp(), reference.log_probs
    log_q = precise.gather(1, reference.tokens.long()) - precise.logsumexp(dim=1, keepdim=True)
    rest_p, rest_q = ((1 - kept.sum(dim=1)).clamp(min=LEAST_REST) for kept in (p, log_q.exp()))
    return (p * (log_p - log_q)).sum(dim=1) + rest_p * (rest_p.log() - rest_q.log())


def compared_likelihoods(model: Any, rows: Batch, refusals: Batch) -> tuple[RowLikelihoods, RowLikelihoods]:
    """The likelihoods of the responses, and without gradient those of refusals of the same prompts.

    Args:
        model: A `transformers` or PEFT causal language model.
        rows: As for `model_likelihoods`.
        refusals: The same prompts, row by row, each answered by a refusal.
    """
    if not keeps_a_cache(model):
        # The response first: under autocast, weights cast without a graph would be reused for it.
        compliance = model_likelihoods(model, rows)
        with torch.no_grad():
            return compliance, model_likelihoods(model, refusals)
    logits, targets, cache = _forward(model, rows, keep_cache=True)
    compliance = row_likelihoods(logits, targets)
    with torch.no_grad():
        return compliance, _refusals_on_cache(model, rows, refusals, cache)


def _forward(
    model: Any, batch: Batch, *, keep_cache: bool = False, share_prefix: bool = True
) -> tuple[Tensor, Tensor, Any]:
    """Logits ``[K, V]`` of the targets that count, the targets ``[B, T]``, and the cache where it was kept."""
    # Position t predicts token t + 1. The last position predicts nothing and is not fed.
    input_ids, targets = batch["input_ids"][:, :-1], batch["labels"][:, 1:]
    scored = targets != IGNORED
    shared = shared_prefix(batch) if share_prefix and keeps_a_cache(model) else 0
    cache = prefix_cache(model, input_ids[:1, :shared], len(input_ids)) if shared else None
    with _scored_positions(model, scored[:, shared:]):
        output = model(
            input_ids=input_ids[:, shared:],
            attention_mask=batch["attention_mask"][:, :-1],
            past_key_values=cache,
            use_cache=keep_cache or cache is not None,
        )
    return output.logits[0], targets, output.past_key_values


def _refusals_on_cache(model: Any, rows: Batch, refusals: Batch, cache: Any) -> RowLikelihoods:
    """Feeds each row its last prompt token and its refusal but for the last token; of the cache, the prompt before."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
    answers = refusals["labels"] != IGNORED
    # A row that only stands in has no answer; it is fed one token all the same.
    width = max(1, int(answers.sum(dim=1).max()))
    # The first response position, which is also the prompt's length.
    prompt_length = answers.long().argmax(dim=1)
    positions = (prompt_length.unsqueeze(1) - 1).clamp(min=0) + torch.arange(width, device=answers.device)
    last = refusals["labels"].shape[1] - 1
    inside = positions < last
    targets = refusals["labels"].gather(1, (positions + 1).clamp(max=last)).masked_fill(~inside, IGNORED)
    taken = positions.clamp(max=last)
    columns = torch.arange(rows["labels"].shape[1] - 1, device=answers.device)
    earlier = (columns < prompt_length.unsqueeze(1) - 1).long()
    present = (refusals["attention_mask"].gather(1, taken) * inside).long()
    with _scored_positions(model, targets != IGNORED):
        logits = model(
            input_ids=refusals["input_ids"].gather(1, taken),
            attention_mask=torch.cat([earlier, present], dim=1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits[0]
    return row_likelihoods(logits, targets)


def row_likelihoods(logits: Tensor, targets: Tensor) -> RowLikelihoods:
    """Sums the tokens' cross-entropies by row.

    Args:
        logits: ``[K, V]``, one for each target that counts, row by row. The sum is made in float32 at least.
        targets: ``[B, T]``, -100 where none counts.
    """
    return RowLikelihoods(*_by_row(token_nll(logits, targets), targets))


def _by_row(found: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A value ``[K]`` of each target that counts, summed by row, and how many there are of a row; each ``[B]``."""
    scored = targets != IGNORED
    by_row = found.new_zeros(scored.shape).masked_scatter(scored, found)
    return by_row.sum(dim=1), scored.sum(dim=1)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """``[K]``, the cross-entropy of each target that counts, row by row. Arguments as for `row_likelihoods`."""
    return functional.cross_entropy(_precise(logits), targets[targets != IGNORED], reduction="none")


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize >= 4 else logits.float()


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


def prefix_cache(model: Any, prefix: Tensor, rows: int) -> Any:
    """The keys and values of a prefix ``[1, P]``, once for each of so many rows. Gradients flow back through them."""
    with _scored_positions(model, torch.zeros_like(prefix, dtype=torch.bool)):
        cache = model(input_ids=prefix, use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache


def keeps_a_cache(model: Any) -> bool:
    """Whether all keys and values stay at hand: not while activations are recomputed, nor with a sliding window or a
    recurrent state, where a cache holds something else. Nor in a sharded model, whose parameters are gathered again for
    the backward of what a module returned: keys and values leave by another door.
    """
    if isinstance(model, FSDPModule):
        return False
    architecture = model.get_base_model() if hasattr(model, "get_base_model") else model
    checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in architecture.modules())
    config = architecture.config.get_text_config()
    whole = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return whole and not checkpointing and not getattr(config, "sliding_window", None) and not architecture._is_stateful


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
