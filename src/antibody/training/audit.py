"""What the defence thought of each row, over the whole run. Holds no text."""

from collections.abc import Sequence
from typing import Any

from antibody.data.records import Record


class RowAudit:
    """Collects every row's scores and weights, and survives a resume."""

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[int, float, float]]] = {}

    def add(self, step: int, rows: Sequence[int], scores: Sequence[float], weights: Sequence[float]) -> None:
        """Adds one step.

        Args:
            step: 1-based optimiser step.
            rows: Indices in the data set.
            scores: r_i, nats.
            weights: w_i, which sum to 1 over the batch.
        """
        for row, score, weight in zip(rows, scores, weights, strict=True):
            self.rows.setdefault(row, []).append((step, score, weight * len(rows)))

    def report(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """One object a row of the upload. A weight of 1.0 is the row's fair share of its batch."""
        return [_row(record, self.rows.get(index, [])) for index, record in enumerate(records)]

    def state_dict(self) -> list[list[Any]]:
        return [[row, seen] for row, seen in self.rows.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        self.rows = {row: [(step, score, weight) for step, score, weight in seen] for row, seen in state}


def _row(record: Record, seen: Sequence[tuple[int, float, float]]) -> dict[str, Any]:
    return {
        "line": record.line,
        "id": record.id,
        "harmful": record.harmful,
        "times_seen": len(seen),
        "score_first": seen[0][1] if seen else None,
        "score_last": seen[-1][1] if seen else None,
        "weight_mean": sum(weight for _, _, weight in seen) / len(seen) if seen else None,
        "weights": [[step, weight] for step, _, weight in seen],
    }
