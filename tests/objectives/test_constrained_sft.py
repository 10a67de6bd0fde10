"""Constrained SFT against its loss in numpy, differentiated numerically."""

import numpy as np
import pytest
from objectives.toy import FEATURES, VOCABULARY, ToyStep, mean_gradient, numeric_gradient, rows

from antibody.objectives.constrained_sft import LEAST_WEIGHT, ConstrainedSFT

ALIGNED, NOW = (np.random.default_rng(seed).normal(size=(VOCABULARY, FEATURES)) for seed in (7, 8))
USER = rows(5, seed=9, lengths=(1, 3, 4, 7))
SETTINGS = {"beta": 0.2, "first_factor": 3.0, "prefix_factor": 6.0, "prefix_length": 3}
# β_t of the first seven tokens, by the settings above.
BETAS = [0.6, 1.2, 1.2, 0.2, 0.2, 0.2, 0.2]


def log_probs(weight: np.ndarray, features: list[float]) -> np.ndarray:
    logits = weight @ np.array(features)
    return logits - np.log(np.exp(logits).sum())


def loss(weights: list[np.ndarray]) -> float:
    """−Σ (2/β_t) log σ(β_t Δ_t) / Σ N, as the paper has it."""
    total = 0.0
    for features, response in USER:
        gained = log_probs(weights[0], features) - log_probs(ALIGNED, features)
        for beta, token in zip(BETAS, response, strict=False):
            total += 2 / beta * np.log(1 + np.exp(-beta * gained[token]))
    return total / sum(len(response) for _, response in USER)


def at(weight: np.ndarray, size: int = 100) -> ToyStep:
    return ToyStep(weight, {"rows": USER}, size)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_direction_equals_the_derivation(size: int) -> None:
    """The first step tells it the aligned model; the second is somewhere else."""
    objective = ConstrainedSFT(**SETTINGS)
    objective(at(ALIGNED))
    step = at(NOW, size)
    objective(step)
    np.testing.assert_allclose(step.direction, numeric_gradient(loss, [NOW])[0], atol=1e-8, rtol=0)
    np.testing.assert_array_equal(step.weight.detach().numpy(), NOW)


def test_at_the_aligned_model_it_is_plain_sft() -> None:
    step = at(ALIGNED)
    result = ConstrainedSFT()(step)
    np.testing.assert_allclose(step.direction, mean_gradient(ALIGNED, USER), atol=1e-10, rtol=0)
    assert result.metrics["token_weight"] == pytest.approx(1.0, abs=1e-12)


def test_the_aligned_model_survives_a_resume() -> None:
    objective, resumed = ConstrainedSFT(**SETTINGS), ConstrainedSFT(**SETTINGS)
    objective(at(ALIGNED))
    resumed.load_state_dict(objective.state_dict())
    steps = [at(NOW), at(NOW)]
    objective(steps[0])
    resumed(steps[1])
    np.testing.assert_array_equal(steps[0].direction, steps[1].direction)


def test_a_token_that_has_gained_much_keeps_the_least_weight() -> None:
    """∂NLL/∂W of one token whose β_1 Δ_1 is far above log 2000."""
    sure, unsure = np.zeros((VOCABULARY, FEATURES)), np.zeros((VOCABULARY, FEATURES))
    sure[0, 0], unsure[0, 0] = 5.0, -20.0
    data = {"rows": [([1.0, 0.0, 0.0], [0])]}
    objective = ConstrainedSFT(beta=10.0)
    objective(ToyStep(unsure, data))
    step = ToyStep(sure, data)
    objective(step)
    np.testing.assert_allclose(step.direction, LEAST_WEIGHT * mean_gradient(sure, data["rows"]), atol=1e-12, rtol=0)


def test_published_settings() -> None:
    """The code's README: --beta=0.1 --bias_factor=20 --first_token_bias_factor=5 --bias_length=5."""
    found = ConstrainedSFT()
    assert (found.beta, found.first_factor, found.prefix_factor, found.prefix_length) == (0.1, 5.0, 20.0, 5)
