"""One optimiser step of a `transformers` model, as the objectives see it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from antibody.objectives.likelihood import compared_likelihoods, model_likelihoods
from antibody.objectives.step import Batch, RowLikelihoods


class ModelStep:
    """Implements `antibody.objectives.step.Step`.

    Args:
        model: The model as the trainer runs it.
        parameters: Its trainable parameters.
        batches: The micro-batches by name.
        autocast: Opens the trainer's autocast context around a forward pass.
    """

    def __init__(
        self,
        model: Any,
        parameters: Sequence[Tensor],
        batches: Mapping[str, Sequence[Batch]],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.batches = batches
        self.autocast = autocast

    def micro_batches(self, name: str) -> Sequence[Batch]:
        return self.batches[name]

    def likelihoods(self, batch: Batch) -> RowLikelihoods:
        with self.autocast():
            return model_likelihoods(self.model, batch)

    def compared(self, rows: Batch, refusals: Batch) -> tuple[RowLikelihoods, RowLikelihoods]:
        with self.autocast():
            return compared_likelihoods(self.model, rows, refusals)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
