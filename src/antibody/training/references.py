"""What the aligned model expected on the anchors, read before the first step."""

from typing import Any

import torch
from torch import Tensor

from antibody.data.collation import IGNORED
from antibody.objectives.likelihood import model_reference
from antibody.objectives.step import Reference

# Likeliest tokens kept of each position. ASSUMPTION: an aligned model rarely expects more than a few.
KEPT = 32


def references(model: Any, batch: dict[str, Tensor]) -> list[Reference]:
    """The references of a batch's rows, on the CPU. It is what `antibody.screening.reading.read_rows` reads."""
    found = model_reference(model, batch, KEPT)
    lengths = (batch["labels"] != IGNORED).sum(dim=1).tolist()
    parts = (torch.split(tensor.cpu(), lengths) for tensor in (found.tokens.int(), found.log_probs))
    # A part by itself would keep, and send to other processes, the whole that it is a view of.
    return [Reference(tokens.clone(), log_probs.clone()) for tokens, log_probs in zip(*parts, strict=True)]
