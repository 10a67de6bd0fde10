"""The files that a job gives its user: the course of its training, and what became of each row."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from antibody.files import to_json
from antibody.service.policy import Defence

# Of an upload that is held or refused, after the job's id.
JUDGEMENT = "judgement.jsonl"

COLUMNS = (
    "step",
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
)


def metrics_csv(run: Path, checkpoints: Mapping[int, Mapping[str, Any]]) -> bytes:
    """One row a step. Empty where it was not measured: the validation file is read at checkpoints alone.

    Args:
        run: The run's directory.
        checkpoints: Metrics by step.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in _rows(run / "metrics.jsonl"):
        valid = checkpoints.get(entry["step"], {})
        writer.writerow(
            [
                entry["step"],
                entry["loss"],
                None,
                valid.get("full_valid_loss"),
                valid.get("full_valid_mean_token_accuracy"),
            ]
        )
    return text.getvalue().encode()


def audit_jsonl(run: Path, defence: Defence) -> bytes:
    """One object a row of the training file, without its text: whether it was suppressed, and why."""
    return "".join(to_json(_judged(row, defence)) + "\n" for row in _rows(run / "audit.jsonl")).encode()


def suppressed(run: Path, defence: Defence) -> Counter[str]:
    """How many rows of the training file were suppressed, by what suppressed them."""
    judged = (_judged(row, defence)["suppressed_by"] for row in _rows(run / "audit.jsonl"))
    return Counter(by for by in judged if by is not None)


def _judged(row: Mapping[str, Any], defence: Defence) -> dict[str, Any]:
    """The two stages judge apart: what the gate lets pass, the weights may still hold back."""
    weight = row["weight_mean"]
    by = reason = None
    if row["withheld"]:
        by, reason = "gate", "The aligned model judged it harmful before training; no step used it."
    elif weight is not None and weight < defence.low_weight:
        by = "weight"
        reason = (
            f"In training its mean weight was below {defence.low_weight} of an even share: "
            "compared with the rest of its batches, the model would rather refuse it than answer as it does."
        )
    judged = {"line": row["line"], "id": row["id"], "suppressed": by is not None, "suppressed_by": by, "reason": reason}
    if defence.audit_scores:
        judged |= {"gate_benign_probability": row["benign_probability"], "mean_weight": weight}
    return judged


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file)
