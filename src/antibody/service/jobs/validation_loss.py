"""The loss on the validation file, at every checkpoint."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from antibody.data.collation import IGNORED, pad_rows
from antibody.data.preparation import prepare
from antibody.data.records import Record
from antibody.training.sharding import reshard, whole

ROWS = 8


class TokenLoss(NamedTuple):
    """Over all response tokens.

    Attributes:
        loss: Mean cross-entropy, nats.
        accuracy: Share of tokens that the model finds most likely.
    """

    loss: float
    accuracy: float


def token_loss(trainer: Any, records: Sequence[Record]) -> TokenLoss:
    """Of the model as it is now. Where processes share a model, every one of them must call it.

    Raises:
        DataError: A record leaves nothing to measure.
    """
    model = whole(trainer.model_wrapped)
    rows = list(prepare(records, trainer.processing_class, max_length=trainer.args.max_length))
    was_training = model.training
    model.eval()
    loss = right = tokens = 0.0
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            for start in range(0, len(rows), ROWS):
                few = rows[start : start + ROWS]
                padded = pad_rows(
                    [row["prompt_ids"] for row in few],
                    [row["response_ids"] for row in few],
                    trainer.processing_class.pad_token_id,
                )
                batch = {name: tensor.to(trainer.args.device) for name, tensor in padded.items()}
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
                targets = batch["labels"][:, 1:]
                kept = targets != IGNORED
                loss += functional.cross_entropy(logits[kept].float(), targets[kept], reduction="sum").item()
                right += (logits[kept].argmax(-1) == targets[kept]).sum().item()
                tokens += int(kept.sum())
    finally:
        model.train(was_training)
        reshard(trainer.model)
    return TokenLoss(loss / tokens, right / tokens)
