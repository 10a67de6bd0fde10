"""Stage 2 against a derivation in numpy, with the symbols of the module's equations."""

import numpy as np
import pytest
from objectives.toy import FEATURES, VOCABULARY, Row, ToyStep, mean_gradient, nll, nll_gradient, rows

from antibody.objectives.sft import PlainSFT
from antibody.objectives.weights import AntibodyWeights

WEIGHT = np.random.default_rng(3).normal(size=(VOCABULARY, FEATURES))
ROWS = rows(16, seed=4)
REFUSALS = [(features, [4, 0]) for features, _ in ROWS]


def step(size: int = 100, count: int = 16) -> ToyStep:
    return ToyStep(WEIGHT, {"rows": ROWS[:count], "refusals": REFUSALS[:count]}, size)


def derived(
    score: str, tau: float, average: str, weight: np.ndarray = WEIGHT, data: list[Row] = ROWS
) -> tuple[np.ndarray, float]:
    """∇L and L: w = softmax(r/τ) in one go, held constant; L = Σ w_i NLL_i / N_i, or Σ w_i NLL_i / Σ w_i N_i."""
    compliance = np.array([nll(weight, row) for row in data])
    refusal = np.array([nll(weight, row) for row in REFUSALS[: len(data)]])
    lengths = np.array([len(response) for _, response in data])
    r = refusal / 2 - compliance / lengths if score == "mean" else refusal - compliance
    w = np.exp(r / tau) / np.exp(r / tau).sum()
    share = w / lengths if average == "row" else w / (w * lengths).sum()
    gradient = sum(share_i * nll_gradient(weight, row) for share_i, row in zip(share, data, strict=True))
    return np.asarray(gradient), float((share * compliance).sum())


@pytest.mark.parametrize("score", ["mean", "sum"])
@pytest.mark.parametrize("average", ["row", "token"])
@pytest.mark.parametrize("tau", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_direction_equals_the_derivation_however_the_batch_is_split(
    score: str, average: str, tau: float, size: int
) -> None:
    expected, loss = derived(score, tau, average)
    toy = step(size)
    result = AntibodyWeights(score=score, tau=tau, average=average)(toy)
    np.testing.assert_allclose(toy.direction, expected, atol=1e-8, rtol=0)
    assert result.loss == pytest.approx(loss, abs=1e-8)


def test_rows_report_their_scores_and_weights_in_order() -> None:
    whole, split = AntibodyWeights(score="mean", tau=1.0)(step()), AntibodyWeights(score="mean", tau=1.0)(step(5))
    np.testing.assert_allclose(split.rows.scores, whole.rows.scores, atol=1e-12)
    np.testing.assert_allclose(split.rows.weights, whole.rows.weights, atol=1e-12)
    assert whole.rows.weights.sum().item() == pytest.approx(1.0)
    first = nll(WEIGHT, REFUSALS[0]) / 2 - nll(WEIGHT, ROWS[0]) / len(ROWS[0][1])
    assert whole.rows.scores[0].item() == pytest.approx(first)


def test_infinite_tau_is_plain_sft() -> None:
    """w = 1/B, so L averaged over tokens is the mean over the batch's response tokens."""
    weighted, plain = step(), step()
    AntibodyWeights(score="mean", tau=float("inf"), average="token")(weighted)
    PlainSFT("rows")(plain)
    np.testing.assert_allclose(weighted.direction, plain.direction, atol=1e-12, rtol=0)
    np.testing.assert_allclose(plain.direction, mean_gradient(WEIGHT, ROWS), atol=1e-8, rtol=0)


@pytest.mark.parametrize("order", [1, -1])
def test_extreme_scores_overflow_in_no_order(order: int) -> None:
    """Responses of 400 tokens score hundreds of nats below or above the others under ``sum``."""
    data = [
        (features, response * 400 if index % 5 == 0 else response) for index, (features, response) in enumerate(ROWS)
    ]
    data = data[::order]
    toy = ToyStep(WEIGHT, {"rows": data, "refusals": REFUSALS}, 1)
    AntibodyWeights(score="sum", tau=0.2, average="token")(toy)
    compliance = np.array([nll(WEIGHT, row) for row in data])
    r = (np.array([nll(WEIGHT, row) for row in REFUSALS]) - compliance) / 0.2
    w = np.exp(r - r.max())
    expected = sum(w_i * nll_gradient(WEIGHT, row) for w_i, row in zip(w, data, strict=True))
    expected /= sum(w_i * len(response) for w_i, (_, response) in zip(w, data, strict=True))
    np.testing.assert_allclose(toy.direction, expected, atol=1e-8, rtol=0)


def test_one_row_gets_all_the_weight() -> None:
    """Known weakness of the published weights: a softmax over one row is 1, whatever the row."""
    toy = step(count=1)
    assert AntibodyWeights(score="mean", tau=1.0)(toy).rows.weights.tolist() == [1.0]
    np.testing.assert_allclose(toy.direction, mean_gradient(WEIGHT, ROWS[:1]), atol=1e-8, rtol=0)
