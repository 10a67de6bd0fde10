"""A model small enough to differentiate by hand: a linear softmax over five tokens.

``log π(t | x) = (Wx)_t − log Σ_v exp((Wx)_v)`` for every response token t, so that

    NLL(y|x)  = Σ_{t∈y} −log π(t|x)
    ∂NLL/∂W  = Σ_{t∈y} (softmax(Wx) − 1_t) xᵀ

The step below goes through autograd; the functions are the same in numpy, without it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from antibody.objectives.likelihood import divergence
from antibody.objectives.processes import Processes
from antibody.objectives.step import Batch, LayerStates, Reference, RowDivergences, RowLikelihoods, TokenLikelihoods

VOCABULARY, FEATURES, HIDDEN = 5, 3, 4

Row = tuple[list[float], list[int]]


def rows(count: int, seed: int, lengths: Sequence[int] = (1, 2, 3)) -> list[Row]:
    """Rows of features and response tokens, drawn by seed."""
    random = np.random.default_rng(seed)
    return [
        (random.normal(size=FEATURES).tolist(), random.integers(VOCABULARY, size=lengths[i % len(lengths)]).tolist())
        for i in range(count)
    ]


class ToyStep:
    """`antibody.objectives.step.Step` over the linear model, split into micro-batches of a size."""

    def __init__(self, weight: np.ndarray, batches: dict[str, list[Row]], size: int = 100) -> None:
        self.weight = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
        self.parameters: Sequence[Tensor] = [self.weight]
        self.processes = Processes()
        self.batches = batches
        self.size = size
        self.withheld = 0
        self.forward_passes = 0

    def micro_batches(self, name: str) -> list[Batch]:
        rows = self.batches[name]
        starts = range(0, len(rows), self.size)
        return [_batch(rows[start : start + self.size], start) for start in starts]

    def likelihoods(self, batch: Batch) -> RowLikelihoods:
        self.forward_passes += 1
        log_probs = (batch["x"] @ self.weight.T).log_softmax(dim=1)
        present = batch["y"] >= 0
        chosen = log_probs.gather(1, batch["y"].clamp(min=0)) * present
        return RowLikelihoods(nll=-chosen.sum(dim=1), tokens=present.sum(dim=1))

    def compared(self, rows: Batch, refusals: Batch) -> tuple[RowLikelihoods, RowLikelihoods]:
        with torch.no_grad():
            refusal = self.likelihoods(refusals)
        return self.likelihoods(rows), refusal

    def token_likelihoods(self, batch: Batch) -> TokenLikelihoods:
        present = batch["y"] >= 0
        log_probs = (batch["x"] @ self.weight.T).log_softmax(dim=1)
        return TokenLikelihoods(-log_probs.gather(1, batch["y"].clamp(min=0)) * present, present)

    def divergences(self, batch: Batch, reference: Reference) -> RowDivergences:
        """The model expects the same at each position of a response."""
        tokens = (batch["y"] >= 0).sum(dim=1)
        logits = (batch["x"] @ self.weight.T).repeat_interleave(tokens, dim=0)
        parts = divergence(logits, reference).split(tokens.tolist())
        return RowDivergences(kl=torch.stack([part.sum() for part in parts]), tokens=tokens)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    @property
    def direction(self) -> np.ndarray:
        return self.weight.grad.numpy()


class DeepToyStep:
    """`antibody.objectives.step.Step` over a model of two layers: ``e_1 = U x``, ``e_2 = V e_1``.

    The head reads ``W (e_1 + e_2)``; from the depths below it ``W e_1``, and ``W P x``, where P fills x with zeros.
    """

    def __init__(self, weights: Sequence[np.ndarray], batches: dict[str, list[Row]], size: int = 100) -> None:
        self.parameters = [torch.tensor(weight, dtype=torch.float64, requires_grad=True) for weight in weights]
        self.processes = Processes()
        self.batches = batches
        self.size = size
        self.withheld = 0

    def micro_batches(self, name: str) -> list[Batch]:
        rows = self.batches[name]
        return [_batch(rows[start : start + self.size]) for start in range(0, len(rows), self.size)]

    def likelihoods(self, batch: Batch) -> RowLikelihoods:
        return self.attended(batch)[0]

    def attended(self, batch: Batch, shifts: Sequence[Tensor] | None = None) -> tuple[RowLikelihoods, list[Tensor]]:
        u, v, w = self.parameters
        below = batch["x"].unsqueeze(1) @ u.T
        first = below if shifts is None else below + shifts[0]
        above = first @ v.T
        second = above if shifts is None else above + shifts[1]
        return self._read((first + second).squeeze(1) @ w.T, batch), [first, second]

    def by_layer(self, batch: Batch) -> LayerStates:
        u, v, w = self.parameters
        first = batch["x"].unsqueeze(1) @ u.T
        second = first @ v.T
        filled = torch.nn.functional.pad(batch["x"], (0, HIDDEN - FEATURES))
        depths = [filled, first.squeeze(1), (first + second).squeeze(1)]
        read = [self._read(depth @ w.T, batch) for depth in depths]
        nll = torch.stack([each.nll for each in read]).mean(dim=0)
        answered = torch.ones(len(nll), 1, dtype=torch.bool)
        return LayerStates([first, second], answered, RowLikelihoods(nll, read[0].tokens))

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def _read(self, logits: Tensor, batch: Batch) -> RowLikelihoods:
        present = batch["y"] >= 0
        chosen = logits.log_softmax(dim=1).gather(1, batch["y"].clamp(min=0)) * present
        return RowLikelihoods(nll=-chosen.sum(dim=1), tokens=present.sum(dim=1))

    @property
    def direction(self) -> list[np.ndarray]:
        return [parameter.grad.numpy() for parameter in self.parameters]


def deep_weights(seed: int) -> list[np.ndarray]:
    """U, V and W of `DeepToyStep`."""
    random = np.random.default_rng(seed)
    return [random.normal(size=size) for size in ((HIDDEN, FEATURES), (HIDDEN, HIDDEN), (VOCABULARY, HIDDEN))]


def numeric_gradient(
    loss: Callable[[list[np.ndarray]], float], weights: Sequence[np.ndarray], step: float = 1e-5
) -> list[np.ndarray]:
    """Central differences of a loss by every weight."""
    found = []
    for index, weight in enumerate(weights):
        gradient = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            moved = []
            for sign in (1, -1):
                changed = [each.copy() for each in weights]
                changed[index][place] += sign * step
                moved.append(loss(changed))
            gradient[place] = (moved[0] - moved[1]) / (2 * step)
        found.append(gradient)
    return found


def _batch(rows: list[Row], first: int = 0) -> Batch:
    width = max(len(response) for _, response in rows)
    return {
        "row": torch.arange(first, first + len(rows)),
        "x": torch.tensor([features for features, _ in rows], dtype=torch.float64),
        "y": torch.tensor([response + [-1] * (width - len(response)) for _, response in rows]),
    }


def nll(weight: np.ndarray, row: Row) -> float:
    logits = weight @ np.array(row[0])
    return float(sum(np.log(np.exp(logits).sum()) - logits[token] for token in row[1]))


def nll_gradient(weight: np.ndarray, row: Row) -> np.ndarray:
    x = np.array(row[0])
    probabilities = np.exp(weight @ x) / np.exp(weight @ x).sum()
    return sum(np.outer(probabilities - np.eye(VOCABULARY)[token], x) for token in row[1])


def mean_gradient(weight: np.ndarray, rows: list[Row]) -> np.ndarray:
    """∇ of the mean over the response tokens of a batch."""
    return sum(nll_gradient(weight, row) for row in rows) / sum(len(response) for _, response in rows)
