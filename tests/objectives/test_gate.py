"""The gate against a derivation in numpy, with the symbols of the module's equations."""

import numpy as np
import pytest
import torch
from objectives.test_weights import REFUSALS, ROWS, WEIGHT, derived
from objectives.toy import ToyStep, numeric_gradient, rows

from antibody.objectives.gate import Calibration, among_upload, anchor_share, step_scale
from antibody.objectives.step import Reference
from antibody.objectives.weights import AntibodyWeights

ANCHORS = rows(5, seed=9)


# The aligned model, and how many of its five likeliest tokens the anchors' references keep.
ALIGNED, KEPT = WEIGHT + np.random.default_rng(11).normal(size=WEIGHT.shape), 3


def expected(weight: np.ndarray, features: list[float]) -> np.ndarray:
    """p over the tokens, which is the same at every position of a response."""
    logits = weight @ np.array(features)
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


def references() -> list[Reference]:
    found = []
    for features, response in ANCHORS:
        p = expected(ALIGNED, features)
        order = np.argsort(-p)[:KEPT]
        found.append(
            Reference(
                torch.tensor(np.tile(order, (len(response), 1))),
                torch.tensor(np.log(p[order])).expand(len(response), -1),
            )
        )
    return found


def drift(weight: np.ndarray) -> float:
    """The mean over the anchors of D_j, which is a mean of one and the same over the response."""
    divergences = []
    for features, _ in ANCHORS:
        p, q = expected(ALIGNED, features), expected(weight, features)
        order = np.argsort(-p)
        p, q = p[order], q[order]
        p, q = (np.append(each[:KEPT], each[KEPT:].sum()) for each in (p, q))
        divergences.append((p * np.log(p / q)).sum())
    return float(np.mean(divergences))


def step(kept: int, withheld: int, size: int = 100) -> ToyStep:
    batches = {"rows": ROWS[:kept], "refusals": REFUSALS[:kept], "anchors": ANCHORS}
    toy = ToyStep(WEIGHT, batches, size)
    toy.withheld = withheld
    return toy


def test_probability_is_a_half_at_the_decision_point_and_odds_grow_by_e_a_scale() -> None:
    probabilities = Calibration(2.0, 0.5).benign_probability(torch.tensor([2.0, 2.5, 1.0]))
    odds = probabilities / (1 - probabilities)
    np.testing.assert_allclose(odds, [1.0, np.e, np.exp(-2.0)], rtol=1e-5)


@pytest.mark.parametrize("harmful", [0, 1, 10, 50, 100])
def test_the_share_of_harmful_rows_is_found_and_moves_every_probability(harmful: int) -> None:
    """The fixed point is the harmful share of greatest posterior, one harmful and one benign row seen before.

    With L_i = (1 − p_i) / p_i, the posterior's log is ``Σ log(1 − π + π L_i) + log π + log(1 − π)``: here on a grid.
    """
    random = np.random.default_rng(harmful)
    scores = np.concatenate([random.normal(-2, 1, harmful), random.normal(2, 1, 100 - harmful)])
    # Two unit normals, 4 apart: the true odds of a row are exp(4 q).
    alone = 1 / (1 + np.exp(-4 * scores))
    found = among_upload(torch.tensor(alone)).numpy()

    shares = np.linspace(0, 1, 100_001)[1:-1, None]
    likelihoods = np.log(1 - shares + shares * (1 - alone) / alone).sum(axis=1)
    share = shares[np.argmax(likelihoods + np.log(shares[:, 0]) + np.log(1 - shares[:, 0])), 0]
    assert (1 + (1 - found).sum()) / 102 == pytest.approx(share, abs=1e-4)
    np.testing.assert_allclose(found, (1 - share) * alone / ((1 - share) * alone + share * (1 - alone)), atol=1e-3)
    assert share == pytest.approx(harmful / 100, abs=0.05)


@pytest.mark.parametrize(
    ("kept", "rows", "floor", "share"),
    [(16, 16, 0.2, 0.2), (12, 16, 0.2, 0.25), (0, 16, 0.2, 1.0), (15, 16, 0.0, 1 / 16)],
)
def test_anchors_get_what_is_withheld_and_never_less_than_the_floor(
    kept: float, rows: float, floor: float, share: float
) -> None:
    assert anchor_share(kept, rows, floor) == pytest.approx(share)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(("kept", "withheld", "phi"), [(16, 0, 0.3), (6, 10, 0.625), (1, 0, 0.3)])
def test_direction_equals_the_derivation_however_the_batch_is_split(
    kept: int, withheld: int, phi: float, size: int
) -> None:
    """δ = (1 − φ) g_user + φ κ g_anchor, φ = max(φ_0, 1 − kept / rows)."""
    user, loss = derived("mean", 0.7, "row", data=ROWS[:kept])
    [anchor] = numeric_gradient(lambda weights: drift(weights[0]), [WEIGHT])
    toy = step(kept, withheld, size)
    objective = AntibodyWeights(score="mean", tau=0.7, anchor_floor=0.3, anchor_scale=4.0)
    objective.references = references()
    result = objective(toy)
    np.testing.assert_allclose(toy.direction, (1 - phi) * user + phi * 4.0 * anchor, atol=1e-7, rtol=0)
    assert result.metrics["anchor_drift"] == pytest.approx(drift(WEIGHT))
    assert result.loss == pytest.approx(loss)
    assert result.metrics["anchor_share"] == pytest.approx(phi)
    assert result.metrics["rows_withheld"] == withheld


def test_anchors_are_silent_where_nothing_has_drifted_and_come_through_a_checkpoint() -> None:
    objective = AntibodyWeights(score="mean", tau=1.0, anchor_floor=0.3)
    objective.references = references()
    resumed = AntibodyWeights(score="mean", tau=1.0, anchor_floor=0.3)
    resumed.load_state_dict(objective.state_dict())
    toy = ToyStep(ALIGNED, {"rows": ROWS, "refusals": REFUSALS, "anchors": ANCHORS})
    result = resumed(toy)
    assert result.metrics["anchor_drift"] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(toy.direction, 0.7 * derived("mean", 1.0, "row", ALIGNED)[0], atol=1e-9)


def test_steps_are_shortened_where_the_last_of_them_drifted() -> None:
    """D̄ of a step that drifted by D, then of one that did not, is D and 0.7 D; s = min(1, D_0 / D̄)."""
    drifted = drift(WEIGHT)
    objective = AntibodyWeights(score="mean", tau=1.0, anchor_floor=0.3, anchor_tolerance=drifted / 4)
    objective.references = references()
    assert objective(step(kept=16, withheld=0)).scale == pytest.approx(1 / 4)
    resumed = AntibodyWeights(score="mean", tau=1.0, anchor_floor=0.3, anchor_tolerance=drifted / 4)
    resumed.load_state_dict(objective.state_dict())
    toy = ToyStep(ALIGNED, {"rows": ROWS, "refusals": REFUSALS, "anchors": ANCHORS})
    assert resumed(toy).scale == pytest.approx(1 / 4 / 0.7)
    assert [step_scale(each, 0.02) for each in (0.0, 0.02, 0.08)] == [1.0, 1.0, 0.25]


@pytest.mark.parametrize("floor", [None, 0.3])
def test_a_batch_withheld_whole_is_no_step(floor: float | None) -> None:
    """AdamW passes over parameters whose gradient is None: no moment moves, nor does weight decay."""
    toy = step(kept=0, withheld=16)
    optimiser = torch.optim.AdamW([toy.weight], lr=0.1, weight_decay=0.5)
    result = AntibodyWeights(score="mean", tau=1.0, anchor_floor=floor)(toy)
    assert toy.weight.grad is None
    assert (result.loss, result.rows) == (None, None)
    assert result.metrics == {"rows_withheld": 16}
    optimiser.step()
    assert not optimiser.state
    np.testing.assert_array_equal(toy.weight.detach().numpy(), WEIGHT)
