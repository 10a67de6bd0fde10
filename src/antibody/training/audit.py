"""What the defence thought of each row, over the whole run. Holds no text."""

import math
from collections.abc import Sequence
from typing import Any

from antibody.data.records import Record
from antibody.screening.screen import Judged


class RowAudit:
    """Collects every row's screening, scores and weights, and survives a resume.

    Attributes:
        screened: What the aligned model thought of each row before training, by index; None where there is no gate.
    """

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[int, float, float]]] = {}
        self.screened: Judged | None = None

    def add(self, step: int, rows: Sequence[int], scores: Sequence[float], weights: Sequence[float]) -> None:
        """Adds one step.

        Args:
            step: 1-based optimiser step.
            rows: Indices in the data set.
            scores: r_i, nats; NaN where the gate withheld the row.
            weights: w_i, which sum to 1 over the batch, or to 0.
        """
        for row, score, weight in zip(rows, scores, weights, strict=True):
            self.rows.setdefault(row, []).append((step, score, weight * len(rows)))

    def report(self, records: Sequence[Record], *, threshold: float) -> list[dict[str, Any]]:
        """One object a row of the upload. A weight of 1.0 is the row's fair share of its batch."""
        return [self._row(index, record, threshold) for index, record in enumerate(records)]

    def _row(self, index: int, record: Record, threshold: float) -> dict[str, Any]:
        seen = self.rows.get(index, [])
        scored = [score for _, score, _ in seen if not math.isnan(score)]
        probability = self.screened.benign_probabilities[index] if self.screened else None
        withheld = probability is not None and probability < threshold
        return {
            "line": record.line,
            "id": record.id,
            "harmful": record.harmful,
            "screening_score": self.screened.scores[index] if self.screened else None,
            "benign_probability": probability,
            "withheld": withheld,
            "times_seen": len(seen),
            "score_first": scored[0] if scored else None,
            "score_last": scored[-1] if scored else None,
            "weight_mean": sum(weight for _, _, weight in seen) / len(seen) if seen else 0.0 if withheld else None,
            "weights": [[step, weight] for step, _, weight in seen],
        }

    def report_dropped(self, upload: Sequence[Record], trained: Sequence[Record]) -> list[dict[str, Any]]:
        """As `report`, of an upload of which some rows were dropped before training and none was judged in it."""
        kept = {record.id for record in trained}
        # What is trained on has other indices than the upload, so nothing is said of weights.
        return [self._row(-1, record, 0.0) | {"withheld": record.id not in kept} for record in upload]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [[row, seen] for row, seen in self.rows.items()], "screened": self.screened}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # A score that is no number is written as null.
        self.rows = {
            row: [(step, math.nan if score is None else score, weight) for step, score, weight in seen]
            for row, seen in state["rows"]
        }
        self.screened = Judged(*state["screened"]) if state["screened"] else None
