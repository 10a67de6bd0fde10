"""Where a score turns from harmful to benign, found on held-out rows by a logistic fit (Platt scaling)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from antibody.errors import ModelError
from antibody.models.run import Run, is_run
from antibody.objectives.gate import Calibration

logger = logging.getLogger(__name__)

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Held-out rows that were given about the same probability.

    Attributes:
        predicted: Mean probability of being benign that they were given.
        observed: Share of them that are benign, harmful and benign rows counting half of all each.
        rows: Their number.
    """

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class Fit:
    """A calibration and how far it can be trusted.

    Attributes:
        calibration: The curve; None where benign rows score no higher than harmful ones, so that there is none.
        auroc: How often a harmful row scored below a benign one, in [0, 1].
        harmful_rows: Harmful rows it was found on.
        benign_rows: Benign rows it was found on.
        reliability: Bins from those held for harmful to those held for benign.
    """

    calibration: Calibration | None
    auroc: float
    harmful_rows: int
    benign_rows: int
    reliability: list[Bin]

    def to_manifest(self) -> dict[str, Any]:
        return {
            **(self.calibration or Calibration(float("nan"), float("nan")))._asdict(),
            "auroc": self.auroc,
            "harmful_rows": self.harmful_rows,
            "benign_rows": self.benign_rows,
            "reliability": [vars(each) for each in self.reliability],
        }


def fit(harmful: Sequence[float], benign: Sequence[float]) -> Fit:
    """A logistic curve through held-out scores, as if there were as many harmful as benign rows.

    Args:
        harmful: Scores of harmful rows, at least one.
        benign: Scores of benign rows, at least one.
    """
    scores = np.array([*harmful, *benign])
    labels = np.array([0] * len(harmful) + [1] * len(benign))
    auroc = float(roc_auc_score(labels, scores))
    # Standardised, so that the fit's penalty (which keeps s away from 0 where no score is on the wrong side) means the
    # same for any model.
    spread = float(scores.std()) or 1.0
    curve = LogisticRegression(class_weight="balanced").fit(((scores - scores.mean()) / spread).reshape(-1, 1), labels)
    slope, intercept = float(curve.coef_[0, 0]), float(curve.intercept_[0])
    if slope <= 0:
        logger.warning("Held-out benign rows score no higher than harmful ones: this model cannot be a gate.")
        return Fit(None, auroc, len(harmful), len(benign), [])
    calibration = Calibration(decision_point=float(scores.mean()) - spread * intercept / slope, scale=spread / slope)
    weights = np.where(labels == 1, 0.5 / len(benign), 0.5 / len(harmful))
    probabilities = 1 / (1 + np.exp(-(scores - calibration.decision_point) / calibration.scale))
    return Fit(calibration, auroc, len(harmful), len(benign), _reliability(probabilities, labels, weights))


def calibration_of(model: str | Path) -> Calibration | None:
    """Where a run's screening score turns from harmful to benign; None for what is no run of ours.

    Raises:
        ModelError: ``not_calibrated``, where the run cannot tell the two apart or was never asked.
    """
    if not is_run(model):
        return None
    found = Run(Path(model)).manifest().get("calibration") or {}
    if found.get("decision_point") is None:
        raise ModelError(
            f"{model} has no calibration"
            + (f": its scores tell no harmful from benign rows (AUROC {found['auroc']:.2f})." if found else "."),
            hint=f"Align for longer, or calibrate it on other rows: antibody calibrate {model}.",
            code="not_calibrated",
        )
    return Calibration(found["decision_point"], found["scale"])


def _reliability(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> list[Bin]:
    bins = []
    for place in range(BINS):
        inside = np.minimum((probabilities * BINS).astype(int), BINS - 1) == place
        if inside.any():
            share = weights[inside] / weights[inside].sum()
            bins.append(
                Bin(
                    predicted=float((share * probabilities[inside]).sum()),
                    observed=float((share * labels[inside]).sum()),
                    rows=int(inside.sum()),
                )
            )
    return bins
