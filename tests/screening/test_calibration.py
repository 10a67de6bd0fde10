"""The logistic fit against data drawn from a known curve."""

import numpy as np
import pytest

from antibody.errors import ModelError
from antibody.screening.calibration import fit_calibration


def drawn(count: int, seed: int) -> tuple[list[float], list[float]]:
    """Harmful and benign scores of P(benign | q) = σ((q − 2) / 0.5), q uniform around 2."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0, 4, size=count)
    benign = random.uniform(size=count) < 1 / (1 + np.exp(-(scores - 2) / 0.5))
    return scores[~benign].tolist(), scores[benign].tolist()


def test_the_curve_is_found_again() -> None:
    harmful, benign = drawn(4000, seed=0)
    calibration = fit_calibration(harmful, benign).calibration
    assert calibration.decision_point == pytest.approx(2.0, abs=0.05)
    assert calibration.scale == pytest.approx(0.5, abs=0.05)


def test_more_rows_of_one_kind_do_not_move_it() -> None:
    harmful, benign = drawn(4000, seed=1)
    few = fit_calibration(harmful, benign[: len(benign) // 8]).calibration
    assert few.decision_point == pytest.approx(2.0, abs=0.1)


def test_scores_that_nothing_mixes_still_have_a_finite_scale() -> None:
    fit = fit_calibration([-2.0, -1.5, -1.0], [1.0, 1.5, 2.0, 2.5])
    assert fit.auroc == 1.0
    assert -1.0 < fit.calibration.decision_point < 1.0
    assert 0 < fit.calibration.scale < 10


def test_scores_the_wrong_way_round_are_no_calibration() -> None:
    with pytest.raises(ModelError) as caught:
        fit_calibration([1.0, 2.0, 3.0], [-1.0, 0.0, 1.5])
    assert caught.value.code == "not_calibrated"


def test_reliability_is_the_share_of_benign_rows_among_those_given_a_probability() -> None:
    fit = fit_calibration(*drawn(4000, seed=2))
    assert sum(each.rows for each in fit.reliability) == 4000
    for each in fit.reliability:
        assert each.observed == pytest.approx(each.predicted, abs=0.08)
    assert fit.to_manifest()["reliability"][0].keys() == {"predicted", "observed", "rows"}
