"""Stage 1 against a derivation in numpy, with the symbols of the module's equations."""

import math

import numpy as np
import pytest
import torch
from objectives.toy import FEATURES, VOCABULARY, ToyStep, mean_gradient, rows

from antibody.objectives.alignment import AntibodyAlignment, constant_rule, cosine_rule, kkt_rule, perturbed
from antibody.objectives.booster import booster

WEIGHT = np.random.default_rng(0).normal(size=(VOCABULARY, FEATURES))
HARMFUL = rows(6, seed=1)
REFUSAL = [(features, [4, 0, 2]) for features, _ in HARMFUL]
ALIGN = rows(5, seed=2)


def batches() -> dict[str, list]:
    return {"harmful": HARMFUL, "refusal": REFUSAL, "align": ALIGN}


def alignment(**changes: object) -> AntibodyAlignment:
    settings = {"rho": 0.1, "eta": 5.0, "lambda_refusal": 0.05, "rule": "cosine", "momentum": 0.0}
    return AntibodyAlignment(**(settings | changes))


def derived(
    weight: np.ndarray, *, rho: float, eta: float, lambda_refusal: float, rule: str
) -> tuple[np.ndarray, float]:
    """δ and λ_t, written down from the paper: every gradient is the closed form of the linear softmax."""
    g_h = mean_gradient(weight, HARMFUL)
    attacked = weight - rho * g_h / np.linalg.norm(g_h)
    g_s = g_h - mean_gradient(attacked, HARMFUL)
    g_r = mean_gradient(attacked, REFUSAL)
    g_a = mean_gradient(weight, ALIGN)
    inner = (g_a * g_s).sum()
    lambda_t = {
        "kkt": max(0.0, eta - inner / (g_s**2).sum()),
        "cosine": max(0.0, eta - inner / np.linalg.norm(g_a) / np.linalg.norm(g_s)),
        "constant": eta,
    }[rule]
    return g_a + lambda_t * g_s + lambda_refusal * g_r, lambda_t


@pytest.mark.parametrize("rule", ["cosine", "kkt", "constant"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_direction_equals_the_derivation(rule: str, size: int) -> None:
    expected, lambda_t = derived(WEIGHT, rho=0.1, eta=5.0, lambda_refusal=0.05, rule=rule)
    step = ToyStep(WEIGHT, batches(), size)
    result = alignment(rule=rule)(step)
    np.testing.assert_allclose(step.direction, expected, atol=1e-8, rtol=0)
    assert result.metrics["lambda_t"] == pytest.approx(lambda_t, abs=1e-8)


@pytest.mark.parametrize(
    ("objective", "rho", "eta"),
    [
        (alignment(rule="constant", eta=7.0, lambda_refusal=0.0), 0.1, 7.0),
        (booster(rho=0.2, eta=3.0), 0.2, 3.0),
        # Published: script smooth_align.sh, lamb=5, alpha=0.1.
        (booster(), 0.1, 5.0),
    ],
)
@pytest.mark.parametrize("size", [2, 100])
def test_booster(objective: AntibodyAlignment, rho: float, eta: float, size: int) -> None:
    """Booster (arXiv 2409.01586): g_a + λ (g_h − ∇L_harm(θ − α g_h/‖g_h‖)). It needs no refusals."""
    g_h = mean_gradient(WEIGHT, HARMFUL)
    attacked = WEIGHT - rho * g_h / np.linalg.norm(g_h)
    expected = mean_gradient(WEIGHT, ALIGN) + eta * (g_h - mean_gradient(attacked, HARMFUL))
    step = ToyStep(WEIGHT, {"harmful": HARMFUL, "align": ALIGN}, size)
    objective(step)
    np.testing.assert_allclose(step.direction, expected, atol=1e-8, rtol=0)
    assert objective.batches == {"harmful", "align"}


def test_kkt_satisfies_its_constraint() -> None:
    """δ' = g_a + λ g_s solves min ½‖δ' − g_a‖² s.t. ⟨g_s, δ'⟩ ≥ η‖g_s‖²: where λ > 0 the constraint is met exactly."""
    step = ToyStep(WEIGHT, batches())
    result = alignment(rule="kkt", lambda_refusal=0.0, eta=500.0)(step)
    g_h = mean_gradient(WEIGHT, HARMFUL)
    g_s = g_h - mean_gradient(WEIGHT - 0.1 * g_h / np.linalg.norm(g_h), HARMFUL)
    assert result.metrics["lambda_t"] > 0
    assert (g_s * step.direction).sum() == pytest.approx(500.0 * (g_s**2).sum(), abs=1e-8)


def test_four_passes_and_parameters_restored_bitwise() -> None:
    step = ToyStep(WEIGHT, batches())
    before = step.weight.detach().clone()
    alignment()(step)
    assert step.forward_passes == 4
    assert torch.equal(step.weight, before)


def test_parameters_are_restored_when_an_exception_passes_through() -> None:
    class Failing(ToyStep):
        def likelihoods(self, batch):
            if self.forward_passes == 2:
                assert not torch.equal(self.weight, before)
                raise RuntimeError("out of memory")
            return super().likelihoods(batch)

    step = Failing(WEIGHT, batches())
    before = step.weight.detach().clone()
    with pytest.raises(RuntimeError, match="out of memory"):
        alignment()(step)
    assert torch.equal(step.weight, before)


def test_a_zero_gradient_perturbs_nothing() -> None:
    weight = torch.ones(2, dtype=torch.float64)
    with perturbed([weight], [torch.zeros(2, dtype=torch.float64)], 0.1):
        assert torch.equal(weight, torch.ones(2, dtype=torch.float64))


def test_moving_average_starts_at_the_first_value_and_survives_a_resume() -> None:
    """λ̄_1 = λ_1; λ̄_2 = 0.9 λ̄_1 + 0.1 λ_2."""
    other = 0.5 * WEIGHT
    first = derived(WEIGHT, rho=0.1, eta=5.0, lambda_refusal=0.05, rule="cosine")[1]
    second = derived(other, rho=0.1, eta=5.0, lambda_refusal=0.05, rule="cosine")[1]
    assert first != pytest.approx(second, abs=1e-4)
    objective = alignment(momentum=0.9)
    assert objective(ToyStep(WEIGHT, batches())).metrics["lambda_t"] == pytest.approx(first, abs=1e-10)
    resumed = alignment(momentum=0.9)
    resumed.load_state_dict(objective.state_dict())
    assert resumed(ToyStep(other, batches())).metrics["lambda_t"] == pytest.approx(
        0.9 * first + 0.1 * second, abs=1e-10
    )


def test_rules_at_their_edges() -> None:
    assert cosine_rule(1.0, 1.0, 1.0, 0.5) == 0.0
    assert kkt_rule(10.0, 1.0, 1.0, 5.0) == 0.0
    assert kkt_rule(0.0, 1.0, 0.0, 5.0) == 0.0
    assert cosine_rule(0.0, 0.0, 1.0, 5.0) == 5.0
    assert constant_rule(1.0, 1.0, 1.0, 3.0) == 3.0
    assert math.isfinite(cosine_rule(0.0, 1.0, 0.0, 5.0))
