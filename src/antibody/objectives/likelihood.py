"""From logits to the likelihood of each row's response."""

import inspect
from typing import Any

from torch import Tensor
from torch.nn import functional

from antibody.objectives.step import Batch, RowLikelihoods

IGNORED = -100


def row_likelihoods(logits: Tensor, targets: Tensor) -> RowLikelihoods:
    """``NLL(y|x) = -Σ_t log π(y_t | x, y_<t)`` of every row, with its token count.

    Args:
        logits: ``[B, T, V]``, in any floating-point type; the sum is made in float32 at least.
        targets: ``[B, T]``, the token each position should predict, ``-100`` where none counts.

    Returns:
        Per-row values. The reduction over rows is the objective's.
    """
    precise = logits if logits.dtype.itemsize >= 4 else logits.float()
    token_nll = functional.cross_entropy(
        precise.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return RowLikelihoods(nll=token_nll.view_as(targets).sum(dim=1), tokens=(targets != IGNORED).sum(dim=1))


def model_likelihoods(model: Any, batch: Batch) -> RowLikelihoods:
    """The likelihood of each row's response under a causal language model.

    Only the columns that some row's response needs go through the LM head, where the architecture allows it.

    Args:
        model: A `transformers` or PEFT causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``.
    """
    targets = batch["labels"][:, 1:]
    columns = (targets != IGNORED).any(dim=0).nonzero().flatten()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    if _selects_columns(model):
        logits = model(**inputs, logits_to_keep=columns).logits
    else:
        logits = model(**inputs).logits[:, columns]
    return row_likelihoods(logits, targets[:, columns])


def _selects_columns(model: Any) -> bool:
    architecture = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(architecture.forward).parameters
