"""What an objective is given, and what it returns.

An objective composes gradients, so a scalar loss is not enough for it. It is given a `Step`, asks for the batches and
their likelihoods, backpropagates as often as it needs to, and leaves the update direction in the parameters' ``.grad``.
Nothing here knows of a trainer: the objectives run on a two-parameter model in a unit test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from antibody.objectives.processes import Processes

Batch = Mapping[str, Tensor]

# What an objective keeps from step to step: numbers, and lists of tensors, such as one for each trainable parameter.
State = dict[str, float | list[Tensor] | None]

# Dropout in the model, activations that are computed again in backward, parameters in parts, several processes.
Situation = Literal["dropout", "recomputed", "sharded", "processes"]


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


class TokenLikelihoods(NamedTuple):
    """How likely each token of each response is, given what comes before it.

    Attributes:
        nll: ``[B, R]``, ``−log π(y_t | x, y_<t)`` of the t-th response token, in nats; 0 past a response's end.
        present: ``[B, R]``, whether there is such a token.
    """

    nll: Tensor
    present: Tensor


class Reference(NamedTuple):
    """What a model expected at each position before a response token, row by row.

    Attributes:
        tokens: ``[K, k]``, the k likeliest next tokens.
        log_probs: ``[K, k]``, how likely they were, in nats.
    """

    tokens: Tensor
    log_probs: Tensor


class RowDivergences(NamedTuple):
    """How far a model has gone from a reference on each row's response.

    Attributes:
        kl: ``[B]``, summed over the response's tokens, in nats.
        tokens: ``[B]``, as in `RowLikelihoods`.
    """

    kl: Tensor
    tokens: Tensor


class LayerStates(NamedTuple):
    """One forward pass, seen at every depth.

    Attributes:
        hidden: For each layer ``[B, T, H]``, what its feed-forward block gives.
        answered: ``[B, T]``, whether a response token stands there that is not the last.
        likelihoods: Of the responses, where the model's head reads them from each depth; the mean over the depths.
    """

    hidden: list[Tensor]
    answered: Tensor
    likelihoods: RowLikelihoods


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

    def token_likelihoods(self, batch: Batch) -> TokenLikelihoods:
        """One forward pass at the parameters as they are now, token by token."""

    def divergences(self, batch: Batch, reference: Reference) -> RowDivergences:
        """One forward pass, against what another model expected at the same positions."""

    def attended(self, batch: Batch, shifts: Sequence[Tensor] | None = None) -> tuple[RowLikelihoods, Sequence[Tensor]]:
        """One forward pass, and what each attention block gave in it, ``[B, T, H]``, moved by its shift."""

    def by_layer(self, batch: Batch) -> LayerStates:
        """One forward pass with what is inside."""

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
        scale: How much of the optimiser's step is taken, in (0, 1]: what its learning rate is multiplied by.
    """

    loss: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    rows: RowWeights | None = None
    scale: float = 1.0


class Objective(Protocol):
    """Composes an update direction. State that must survive a resume goes through the two state methods.

    One that leaves every ``.grad`` None skips the step: no parameter and no optimiser state moves.
    """

    @property
    def batches(self) -> frozenset[str]:
        """The step's batches that it reads, by name."""

    @property
    def judges(self) -> bool:
        """Whether it weighs the rows of a batch against each other."""

    @property
    def refuses(self) -> Mapping[Situation, str]:
        """Where it would be another method, and why."""

    def __call__(self, step: Step) -> StepResult: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...


SEVERAL_PASSES: Mapping[Situation, str] = {"dropout": "the passes of a step would see different networks"}
