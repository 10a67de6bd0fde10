"""A model small enough to differentiate by hand: a linear softmax over five tokens.

``log π(t | x) = (Wx)_t − log Σ_v exp((Wx)_v)`` for every response token t, so that

    NLL(y|x)  = Σ_{t∈y} −log π(t|x)
    ∂NLL/∂W  = Σ_{t∈y} (softmax(Wx) − 1_t) xᵀ

The step below goes through autograd; the functions are the same in numpy, without it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from antibody.objectives.processes import Processes
from antibody.objectives.step import Batch, RowLikelihoods

VOCABULARY, FEATURES = 5, 3

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
        return [_batch(rows[start : start + self.size]) for start in range(0, len(rows), self.size)]

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

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    @property
    def direction(self) -> np.ndarray:
        return self.weight.grad.numpy()


def _batch(rows: list[Row]) -> Batch:
    width = max(len(response) for _, response in rows)
    return {
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
