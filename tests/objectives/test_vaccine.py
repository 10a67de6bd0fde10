"""Vaccine against backpropagation by hand, through the two layers of the toy model."""

import numpy as np
import pytest
from objectives.toy import VOCABULARY, DeepToyStep, Row, deep_weights, rows

from antibody.objectives.vaccine import Vaccine

WEIGHTS = deep_weights(0)
ALIGN = rows(5, seed=2)


def backpropagated(
    weights: list[np.ndarray], row: Row, shifts: tuple[np.ndarray, np.ndarray] = (0.0, 0.0)
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of one row's NLL: ∂/∂U, ∂/∂V, ∂/∂W, and ∂/∂e_1, ∂/∂e_2, at hidden states moved by shifts.

    z = W (e_1 + e_2), ∂NLL/∂z = N softmax(z) − Σ_t 1_{y_t};  ∂/∂e_2 = Wᵀ∂z;  ∂/∂e_1 = Wᵀ∂z + Vᵀ∂e_2.
    """
    u, v, w = weights
    x, response = np.array(row[0]), row[1]
    first = u @ x + shifts[0]
    second = v @ first + shifts[1]
    logits = w @ (first + second)
    by_logits = len(response) * np.exp(logits) / np.exp(logits).sum() - sum(np.eye(VOCABULARY)[t] for t in response)
    by_second = w.T @ by_logits
    by_first = w.T @ by_logits + v.T @ by_second
    return [np.outer(by_first, x), np.outer(by_second, first), np.outer(by_logits, first + second)], [
        by_first, by_second,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 100])
def test_direction_equals_the_derivation(size: int) -> None:
    hidden = [backpropagated(WEIGHTS, row)[1] for row in ALIGN]
    norm = np.sqrt(sum((gradient**2).sum() for row in hidden for gradient in row))
    moved = [
        backpropagated(WEIGHTS, row, tuple(2.0 * gradient / norm for gradient in gradients))[0]
        for row, gradients in zip(ALIGN, hidden, strict=True)
    ]
    tokens = sum(len(response) for _, response in ALIGN)
    step = DeepToyStep(WEIGHTS, {"align": ALIGN}, size)
    result = Vaccine()(step)
    for found, *expected in zip(step.direction, *moved, strict=True):
        np.testing.assert_allclose(found, sum(expected) / tokens, atol=1e-10, rtol=0)
    assert result.metrics["grad_norm_hidden"] == pytest.approx(norm / tokens, abs=1e-10)


def test_the_perturbation_raises_the_loss() -> None:
    """It follows the gradient: a defence that moved against it would learn to do nothing."""
    result = Vaccine(rho=0.5)(DeepToyStep(WEIGHTS, {"align": ALIGN}))
    assert result.loss is not None
    assert result.metrics["loss_perturbed"] > result.loss + 0.1


def test_without_a_perturbation_it_is_plain_alignment() -> None:
    step = DeepToyStep(WEIGHTS, {"align": ALIGN})
    Vaccine(rho=0.0)(step)
    tokens = sum(len(response) for _, response in ALIGN)
    plain = [backpropagated(WEIGHTS, row)[0] for row in ALIGN]
    for found, *expected in zip(step.direction, *plain, strict=True):
        np.testing.assert_allclose(found, sum(expected) / tokens, atol=1e-10, rtol=0)
