"""What an objective is given, and what it returns.

An objective composes gradients, so a scalar loss is not enough for it. It is given a `Step`, asks for the batches and
their likelihoods, backpropagates as often as it needs to, and leaves the update direction in the parameters' ``.grad``.
Nothing here knows of a trainer: the objectives run on a two-parameter model in a unit test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor

from antibody.objectives.processes import Processes

Batch = Mapping[str, Tensor]


class RowLikelihoods(NamedTuple):
    """How likely each row's response is, given its prompt.

    Attributes:
        nll: ``[B]``, the summed token cross-entropy over the response only, ``NLL(y|x)``, in nats.
        tokens: ``[B]``, the number of response tokens, ``N``. A row of 0 counts for nothing: it stands in where another
            process has one row more.
    """

    nll: Tensor
    tokens: Tensor

    @property
    def ce(self) -> Tensor:
        """``[B]``, the mean cross-entropy a token, ``ce(y|x) = NLL / N``."""
        return self.nll / self.tokens

    def detach(self) -> "RowLikelihoods":
        return RowLikelihoods(self.nll.detach(), self.tokens)


class Step(Protocol):
    """One optimiser step, seen from an objective. The parameters' ``.grad`` is ``None`` when it begins."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The trainable parameters θ."""

    @property
    def processes(self) -> Processes:
        """Those that share the step."""

    @property
    def withheld(self) -> int:
        """How many rows of this process's batch a gate keeps out of it."""

    def micro_batches(self, name: str) -> Sequence[Batch]:
        """This process's part of the step's batch of that name, split to fit in memory, alike in every process.

        There are none where a gate withheld every row of every process. An objective must depend neither on the split
        nor on the number of processes.
        """

    def likelihoods(self, batch: Batch) -> RowLikelihoods:
        """One forward pass at the parameters as they are now."""

    def compared(self, rows: Batch, refusals: Batch) -> tuple[RowLikelihoods, RowLikelihoods]:
        """The likelihoods of the responses, and without gradient those of refusals of the same prompts."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a scalar to ``.grad``; of a sharded parameter, that of the scalar's sum over the
        processes. Each of them calls it equally often.
        """


@dataclass(frozen=True)
class RowWeights:
    """What the objective thought of each row of this process, in the order of the step's micro-batches.

    Attributes:
        scores: ``[B]``, the refusal-against-compliance score r_i.
        weights: ``[B]``, w_i; they sum to 1 over all processes.
    """

    scores: Tensor
    weights: Tensor


@dataclass(frozen=True)
class StepResult:
    """What is logged of a step.

    Attributes:
        loss: The loss that the user's data had, as the objective weighs it; None where none of it counted.
        metrics: Further scalars by name.
        rows: Per-row values, where the objective judges rows.
    """

    loss: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    rows: RowWeights | None = None


class Objective(Protocol):
    """Composes an update direction. State that must survive a resume goes through the two state methods.

    One that leaves every ``.grad`` None skips the step: no parameter and no optimiser state moves.
    """

    def __call__(self, step: Step) -> StepResult: ...

    def state_dict(self) -> dict[str, float | None]: ...

    def load_state_dict(self, state: dict[str, float | None]) -> None: ...
