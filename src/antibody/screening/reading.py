"""Rows through a model once, without gradients."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from antibody.data.collation import pad_rows

# Token ids of a prompt and of a response, both not empty.
Row = tuple[list[int], list[int]]

Found = TypeVar("Found")


@torch.no_grad()
def read_rows(
    model: Any,
    rows: Sequence[Row],
    read: Callable[[Any, dict[str, Tensor]], Sequence[Found]],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[Found]:
    """What is read of every row, in order.

    Args:
        model: A causal language model or a PEFT model around one; its training flags are as before when this returns.
        rows: The rows.
        read: Given the model and a batch as `pad_rows` makes it, one value a row of the batch.
        pad_token_id: Of the tokenizer.
        batch_size: Rows read together.
        progress: Called after every batch with the number of rows read so far.
    """
    # Like lengths together: less of a batch is padding.
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]) + len(rows[index][1]), reverse=True)
    found: dict[int, Found] = {}
    training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        prompts, responses = zip(*(rows[index] for index in chosen), strict=True)
        batch = {key: tensor.to(model.device) for key, tensor in pad_rows(prompts, responses, pad_token_id).items()}
        found |= dict(zip(chosen, read(model, batch), strict=True))
        if progress is not None:
            progress(start + len(chosen))
    model.train(training)
    return [found[index] for index in range(len(rows))]
