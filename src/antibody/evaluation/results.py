"""Writing one evaluation into a run: `evaluation/NAME/{generations.jsonl,verdicts.jsonl,metrics.json}`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

METRICS = (
    "name",
    "kind",
    "model",
    "rows",
    "harmful_score",
    "refusal_rate",
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
    folder.mkdir(parents=True, exist_ok=True)
    # Old figures must not stand beside new answers if this is cut off half-way.
    (folder / "metrics.json").unlink(missing_ok=True)
    _write(folder / "generations.jsonl", "".join(f"{_to_json(row)}\n" for row in generations))
    _write(folder / "verdicts.jsonl", "".join(f"{_to_json(row)}\n" for row in verdicts))
    _write(folder / "metrics.json", _to_json(dict.fromkeys(METRICS) | dict(metrics), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(_without_nan(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
