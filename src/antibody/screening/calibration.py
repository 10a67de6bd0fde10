"""Where a score turns from harmful to benign, found on held-out rows by a logistic fit (Platt scaling)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from antibody.errors import ModelError
from antibody.objectives.gate import Calibration

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
        calibration: The curve.
        auroc: How often a harmful row scored below a benign one, in [0, 1].
        harmful_rows: Harmful rows it was found on, copies in other forms among them.
        benign_rows: Benign rows it was found on, likewise.
        reliability: Bins from those held for harmful to those held for benign.
    """

    calibration: Calibration
    auroc: float
    harmful_rows: int
    benign_rows: int
    reliability: list[Bin]

    def to_manifest(self) -> dict[str, Any]:
        return {
            **self.calibration._asdict(),
            "auroc": self.auroc,
            "harmful_rows": self.harmful_rows,
            "benign_rows": self.benign_rows,
            "reliability": [vars(each) for each in self.reliability],
        }


def fit_calibration(harmful: Sequence[float], benign: Sequence[float]) -> Fit:
    """A logistic curve through held-out scores, as if there were as many harmful as benign rows.

    Args:
        harmful: Scores of harmful rows, at least one.
        benign: Scores of benign rows, at least one.

    Raises:
        ModelError: ``not_calibrated``, where benign rows score no higher than harmful ones.
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
        raise ModelError(
            f"Held-out benign rows score no higher than harmful ones (AUROC {auroc:.2f}), so rows cannot be judged.",
            hint="Align for longer or on more rows, and see that harmful and benign ones are not swapped.",
            code="not_calibrated",
        )
    calibration = Calibration(decision_point=float(scores.mean()) - spread * intercept / slope, scale=spread / slope)
    weights = np.where(labels == 1, 0.5 / len(benign), 0.5 / len(harmful))
    probabilities = 1 / (1 + np.exp(-(scores - calibration.decision_point) / calibration.scale))
    return Fit(calibration, auroc, len(harmful), len(benign), _reliability(probabilities, labels, weights))


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
