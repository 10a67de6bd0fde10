"""From tokenised rows to padded tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

IGNORED = -100

# The index of a row that stands in for none, and counts for nothing.
STAND_IN = -1

INPUT_KEYS = ("input_ids", "attention_mask", "labels")


def pad_rows(prompts: Sequence[list[int]], responses: Sequence[list[int]], pad_token_id: int) -> dict[str, Tensor]:
    """Prompt and response of each row, padded on the right, with the prompt masked from the loss.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``; labels are -100 outside the response.
    """
    width = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    input_ids = torch.full((len(prompts), width), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor(prompt + response)
        attention_mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(response)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


class PairedCollator:
    """Collates rows together with the refusal each is compared with.

    The refusal's tensors carry the prefix ``refusal_``; rows without a refusal have none. ``row`` is the row's index in
    the data set and ``harmful`` its label: 1, 0, or -1 where unknown. No rows become one that stands in: its response
    is empty, and its index `STAND_IN`.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if not rows:
            nothing = [self.pad_token_id] * 2
            rows = [{"prompt_ids": nothing, "response_ids": [], "refusal_ids": [], "row": STAND_IN, "harmful": -1}]
        prompts = [row["prompt_ids"] for row in rows]
        batch = pad_rows(prompts, [row["response_ids"] for row in rows], self.pad_token_id)
        if "refusal_ids" in rows[0]:
            refusals = pad_rows(prompts, [row["refusal_ids"] for row in rows], self.pad_token_id)
            batch |= {f"refusal_{key}": value for key, value in refusals.items()}
        for label in ("row", "harmful"):
            batch[label] = torch.tensor([row[label] for row in rows])
        return batch


def by_length(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same rows, shortest first, so that a micro-batch of neighbours pads little."""
    order = batch["attention_mask"].sum(dim=1).argsort(stable=True)
    return {key: tensor[order] for key, tensor in batch.items()}


def split_batch(batch: Mapping[str, Tensor], size: int | None, prefix: str = "") -> list[dict[str, Tensor]]:
    """Splits the tensors named ``prefix + input_ids`` and so on into micro-batches, without columns that only pad.

    Args:
        batch: What `PairedCollator` returned.
        size: Rows in a micro-batch; None leaves the batch whole.
        prefix: ``refusal_`` for the refusals.

    Returns:
        The micro-batches, each with the rows' indices under ``row``.
    """
    rows = {key: batch[prefix + key] for key in INPUT_KEYS} | {"row": batch["row"]}
    pieces = (
        [
            {key: tensor[start : start + size] for key, tensor in rows.items()}
            for start in range(0, len(rows["labels"]), size)
        ]
        if size
        else [rows]
    )
    return [
        piece | {key: piece[key][:, : int(piece["attention_mask"].sum(dim=1).max())] for key in INPUT_KEYS}
        for piece in pieces
    ]
