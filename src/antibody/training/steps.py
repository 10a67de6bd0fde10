"""One optimiser step of a `transformers` model, as the objectives see it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from antibody.objectives.likelihood import (
    compared_likelihoods,
    model_divergences,
    model_likelihoods,
    model_token_likelihoods,
)
from antibody.objectives.processes import Processes
from antibody.objectives.step import Batch, LayerStates, Reference, RowDivergences, RowLikelihoods, TokenLikelihoods
from antibody.training.blocks import attended, by_layer


class ModelStep:
    """Implements `antibody.objectives.step.Step`.

    Args:
        model: The model, not wrapped in `DistributedDataParallel`: gradients are added once a pass, by the objective.
        parameters: Its trainable parameters; all sharded by FSDP2, or none.
        processes: Those that share the step.
        batches: This process's micro-batches by name.
        withheld: How many rows of this process's batch a gate keeps out of it.
        autocast: Opens the trainer's autocast context around a forward pass.
    """

    def __init__(
        self,
        model: Any,
        parameters: Sequence[Tensor],
        processes: Processes,
        batches: Mapping[str, Sequence[Batch]],
        withheld: int,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.processes = processes
        self.batches = batches
        self.withheld = withheld
        self.autocast = autocast
        # The batches that the objective asked for.
        self.read: set[str] = set()
        # FSDP2 averages gradients over the processes, where an objective wants their sum.
        self.gradient_factor = processes.count if isinstance(parameters[0], DTensor) else 1

    def micro_batches(self, name: str) -> Sequence[Batch]:
        self.read.add(name)
        return self.batches[name]

    def likelihoods(self, batch: Batch) -> RowLikelihoods:
        with self.autocast():
            return model_likelihoods(self.model, batch)

    def compared(self, rows: Batch, refusals: Batch) -> tuple[RowLikelihoods, RowLikelihoods]:
        with self.autocast():
            return compared_likelihoods(self.model, rows, refusals)

    def token_likelihoods(self, batch: Batch) -> TokenLikelihoods:
        with self.autocast():
            return model_token_likelihoods(self.model, batch)

    def divergences(self, batch: Batch, reference: Reference) -> RowDivergences:
        with self.autocast():
            return model_divergences(self.model, batch, reference)

    def attended(self, batch: Batch, shifts: Sequence[Tensor] | None = None) -> tuple[RowLikelihoods, Sequence[Tensor]]:
        with self.autocast():
            return attended(self.model, batch, shifts)

    def by_layer(self, batch: Batch) -> LayerStates:
        with self.autocast():
            return by_layer(self.model, batch)

    def backward(self, loss: Tensor) -> None:
        (loss * self.gradient_factor).backward()  # type: ignore[no-untyped-call]
