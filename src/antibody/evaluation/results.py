"""Writing one evaluation into a run: `evaluation/NAME/{generations.jsonl,verdicts.jsonl,metrics.json}`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from antibody.files import write_json, write_jsonl

METRICS = (
    "name",
    "kind",
    "model",
    "rows",
    "harmful_score",
    "refusal_rate",
    "over_refusal",
    "neither_rate",
    "unparsable_rate",
    "task_accuracy",
    "refusal_margin",
    "score_auroc",
    "judge",
    "seconds",
)
"""What every metrics.json holds; null where it does not apply."""


def write_result(
    folder: Path,
    metrics: Mapping[str, object],
    generations: Sequence[Mapping[str, object]],
    verdicts: Sequence[Mapping[str, object]],
) -> None:
    """Write the three files of an evaluation. A folder with a `metrics.json` is complete.

    Args:
        folder: `evaluation/NAME` of a run; made if missing. Results already there are replaced.
        metrics: Figures; those of `METRICS` that are missing, and every NaN, are written as null.
        generations: One object an answer.
        verdicts: One object an answer, in the same order.
    """
    # Old figures must not stand beside new answers if this is cut off half-way.
    (folder / "metrics.json").unlink(missing_ok=True)
    write_jsonl(folder / "generations.jsonl", generations)
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    write_json(folder / "metrics.json", dict.fromkeys(METRICS) | dict(metrics))
