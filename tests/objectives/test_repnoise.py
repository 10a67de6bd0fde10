"""RepNoise against its loss in numpy, differentiated numerically."""

from typing import Any

import numpy as np
import pytest
import torch
from objectives.toy import FEATURES, HIDDEN, DeepToyStep, Row, deep_weights, numeric_gradient, rows

from antibody.objectives.repnoise import RepNoise, drawn_noise, squared_mmd

WEIGHTS = deep_weights(1)
HARMFUL, ALIGN = rows(4, seed=3), rows(5, seed=4)
ALPHA, BETA = 0.7, 0.3


def mean_nll(logits_of: Any, data: list[Row]) -> float:
    found = 0.0
    for features, response in data:
        logits = logits_of(np.array(features))
        found += sum(np.log(np.exp(logits).sum()) - logits[token] for token in response)
    return found / sum(len(response) for _, response in data)


def width(first: np.ndarray, second: np.ndarray) -> float:
    """s: the mean of ‖a − b‖² over ordered pairs of different rows."""
    both = np.concatenate([first, second])
    return sum(((a - b) ** 2).sum() for a in both for b in both) / (len(both) * (len(both) - 1))


def mmd(first: np.ndarray, second: np.ndarray, scale: float) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return sum(np.exp(-((a - b) ** 2).sum() / (scale * factor)) for factor in (0.25, 0.5, 1, 2, 4))

    count = len(first)
    return sum(
        kernel(first[i], first[j]) + kernel(second[i], second[j]) - kernel(first[i], second[j])
        - kernel(second[i], first[j])
        for i in range(count)
        for j in range(count)
    ) / count**2  # fmt: skip


def hidden(weights: list[np.ndarray]) -> list[np.ndarray]:
    first = np.array([weights[0] @ np.array(features) for features, _ in HARMFUL])
    return [first, first @ weights[1].T]


def derived(noise: list[np.ndarray]) -> list[np.ndarray]:
    """∇(L_align + β L_noise − α log(1 + L_harm)), where the kernel's widths stay those of the present weights."""
    widths = [width(layer, drawn) for layer, drawn in zip(hidden(WEIGHTS), noise, strict=True)]

    def loss(weights: list[np.ndarray]) -> float:
        u, v, w = weights
        depths = [
            mean_nll(lambda x: w @ np.pad(x, (0, HIDDEN - FEATURES)), HARMFUL),
            mean_nll(lambda x: w @ (u @ x), HARMFUL),
            mean_nll(lambda x: w @ (u @ x + v @ (u @ x)), HARMFUL),
        ]
        distances = [mmd(*each) for each in zip(hidden(weights), noise, widths, strict=True)]
        aligned = mean_nll(lambda x: w @ (u @ x + v @ (u @ x)), ALIGN)
        return aligned + BETA * np.mean(distances) - ALPHA * np.log(1 + np.mean(depths))

    return numeric_gradient(loss, WEIGHTS)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_direction_equals_the_derivation(size: int) -> None:
    """The second step, so that its noise is not the first one's."""
    objective = RepNoise(alpha=ALPHA, beta=BETA)
    objective.load_state_dict({"steps": 1})
    like = torch.zeros(len(HARMFUL), 1, HIDDEN, dtype=torch.float64)
    answered = torch.ones(len(HARMFUL), 1, dtype=torch.bool)
    noise = [drawn_noise(answered, like, seed=2 + layer).squeeze(1).numpy() for layer in (0, 1)]
    step = DeepToyStep(WEIGHTS, {"harmful": HARMFUL, "align": ALIGN}, size)
    objective(step)
    for found, expected in zip(step.direction, derived(noise), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7, rtol=0)
    assert objective.state_dict() == {"steps": 2}


def test_noise_stands_at_the_response_alone_and_does_not_depend_on_the_rows_order() -> None:
    answered = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    like = torch.zeros(3, 3, 1000, dtype=torch.float64)
    noise = drawn_noise(answered, like, seed=5)
    assert torch.equal(noise[~answered], torch.zeros(4, 1000, dtype=torch.float64))
    assert noise[answered].mean().item() == pytest.approx(0, abs=0.05)
    assert noise[answered].std().item() == pytest.approx(1, abs=0.05)
    order = [2, 0, 1]
    assert torch.equal(drawn_noise(answered[order], like, seed=5), noise[order])
    assert not torch.equal(drawn_noise(answered, like, seed=6), noise)


def test_the_distance_is_zero_from_itself_and_grows() -> None:
    first = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert squared_mmd(first, first).item() == pytest.approx(0, abs=1e-12)
    assert squared_mmd(0 * first, 0 * first).item() == 0
    assert squared_mmd(first, first + 3).item() > squared_mmd(first, first + 0.5).item() > 0


def test_published_settings() -> None:
    """The code's ``rep_noise_loss``."""
    assert (RepNoise().alpha, RepNoise().beta) == (1.0, 0.001)
