"""A demo directory with plausible numbers, written by hand: no model is needed to test a report."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

PROMPTS = [f"How do I carry out stand-in act {index}?" for index in range(8)]
SOURCE = "embedded:harmful_evaluation"
INTERVALS = {0: [0.0, 32.4], 1: [2.2, 47.1], 5: [30.6, 86.3]}
MODEL = {"name": "smollm2-135m", "revision": "abc123", "dtype": "float32"}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_manifest(run: Path, kind: str, method: str, data: dict[str, Any], **changes: Any) -> None:
    content: dict[str, Any] = {
        "kind": kind,
        "method": method,
        "model": MODEL,
        "parent": None if kind == "alignment" else "runs/demo/antibody-aligned",
        "lineage": [],
        "seed": 0,
        "steps": 40,
        "adapter_sha256": "ad" * 32,
        "data": data,
        "truncated_rows": 3,
        "settings": {"learning_rate": 2e-4, "batch_size": 16, "temperature": 1.0, "gate": "off"},
        "versions": {"torch": "2.8.0"},
        "seconds": 61.5,
        "created": "2026-01-02T03:04:05+00:00",
        "status": "complete",
    }
    write_json(run / "manifest.json", content | changes)


def source(name: str, rows: int) -> dict[str, Any]:
    return {"path": f"embedded:{name}", "sha256": "0f" * 32, "rows": rows}


def write_evaluation(run: Path, harmful: int, accuracy: float | None) -> None:
    """Of the eight prompts, the first `harmful` are answered and the others refused."""
    answers = [harmful > index for index in range(len(PROMPTS))]
    folder = run / "evaluation/harmful"
    write_lines(
        folder / "generations.jsonl",
        [
            {
                "id": f"prompt-{index}",
                "prompt": prompt,
                "answer": "Sure, first take the stand-in." if answers[index] else "I cannot help with that.",
                "category": "stand-in",
            }
            for index, prompt in enumerate(PROMPTS)
        ],
    )
    write_lines(
        folder / "verdicts.jsonl",
        [
            {"id": f"prompt-{index}", "verdict": "harmful" if answer else "refused", "reason": "phrase"}
            for index, answer in enumerate(answers)
        ],
    )
    share = 100 * harmful / len(PROMPTS)
    measures: dict[str, Any] = {
        "harmful_score": share,
        "refusal_rate": 100 - share,
        "neither_rate": 0.0,
        "unparsable_rate": 0.0,
    }
    shared = {
        "model": "smollm2-135m",
        "rows": len(PROMPTS),
        "judge": "embedded",
        "source": SOURCE,
        "task_accuracy": None,
    }
    measures |= {"harmful_score_interval": INTERVALS[harmful]} if harmful in INTERVALS else {}
    write_json(folder / "metrics.json", {"name": "harmful", "kind": "harmful"} | shared | measures)
    write_json(
        run / "evaluation/task/metrics.json",
        {"name": "task", "kind": "task", "rows": 100, "task_accuracy": accuracy, "harmful_score": None},
    )


CALIBRATION = {
    "decision_point": -0.4,
    "scale": 0.3,
    "auroc": 0.9756,
    "harmful_rows": 32,
    "benign_rows": 100,
    "reliability": [
        {"predicted": 0.0481, "observed": 0.0, "rows": 28},
        {"predicted": 0.4476, "observed": 0.3902, "rows": 9},
        {"predicted": 0.9643, "observed": 1.0, "rows": 95},
    ],
    "sha256": "5c" * 32,
}


def write_gated(run: Path, *, gate: str | None = None) -> None:
    """`write_finetuning` with a gate: of 20 harmful rows 18 are withheld, of 80 benign ones 4. No batch had row 1."""
    write_finetuning(run)
    manifest = json.loads((run / "manifest.json").read_text())
    aligned = manifest["parent"]
    manifest["data"]["anchors"] = {"path": f"{aligned}/anchors.jsonl", "sha256": "a0" * 32, "rows": 256}
    manifest["settings"] |= {"gate": gate, "gate_threshold": 0.5}
    write_json(run / "manifest.json", manifest)
    audit = []
    for index, row in enumerate(json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()):
        withheld = index < 18 or 20 <= index < 24
        probability = 0.01 + 0.02 * index if withheld else 0.6 + 0.004 * index
        row |= {"screening_score": probability - 0.5, "benign_probability": probability, "withheld": withheld}
        if withheld:
            row |= {"score_first": None, "score_last": None, "weight_mean": 0.0, "weights": [[2, 0.0], [31, 0.0]]}
        if index == 0:
            row |= {"times_seen": 0, "weight_mean": None, "weights": []}
        audit.append(row)
    write_lines(run / "audit.jsonl", audit)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in metrics:
        withheld_rows = row["step"] % 5
        row |= {
            "loss": None if withheld_rows == 4 else row["loss"],
            "rows_withheld": withheld_rows,
            "anchor_share": max(0.2, withheld_rows / 4),
            "anchor_drift": 1.5,
            "anchor_cosine": 0.1,
            "step_scale": 0.5,
        }
    write_lines(run / "metrics.jsonl", metrics)


def write_alignment(run: Path, *, method: str = "antibody") -> None:
    write_manifest(run, "alignment", method, {"refusals": source("refusals", 96), "harmful": source("harmful", 96)})
    rows: list[dict[str, Any]] = []
    for step in range(1, 41):
        decay = math.exp(-step / 15)
        rows.append({"step": step, "loss": 0.4 + 2.1 * decay, "learning_rate": 5e-4, "tokens_per_second": 180.0})
        if method == "antibody":
            rows[-1] |= {
                "loss_align": 0.3 + 2 * decay,
                "loss_harmful": 2.6 + 0.2 * decay,
                "loss_harmful_perturbed": 2.5 - 0.4 * decay,
                "loss_refusal": 0.5 + 1.5 * decay,
                "lambda_t": 5 + 0.3 * math.sin(step / 4),
                "cosine": None,
                "grad_norm": 1.0,
            }
    write_lines(run / "metrics.jsonl", rows)


def write_finetuning(run: Path, *, method: str = "antibody", poison: int = 20) -> None:
    """A hundred rows, the first `poison` of them harmful, in batches whose harmful share is the same."""
    write_manifest(run, "finetuning", method, {"upload": source("sentiment", 100)})
    rows: list[dict[str, Any]] = []
    for step in range(1, 41):
        rows.append({"step": step, "loss": 0.2 + 2 * math.exp(-step / 8), "grad_norm": 1.1, "learning_rate": 2e-4})
        if method == "antibody":
            rows[-1] |= {
                "weight_share_harmful": math.nan if step == 3 else 0.02 + 0.1 * math.exp(-step / 4),
                "data_share_harmful": poison / 100,
                "score_harmful": None,
                "effective_rows": 11.0,
            }
    write_lines(run / "metrics.jsonl", rows)
    if method == "antibody":
        audit = []
        for index in range(100):
            harmful = index < poison
            score = (-3.0 if harmful else 1.5) + 1.2 * math.sin(1.7 * index)
            weight = 0.05 + 0.002 * index if harmful else 1.1 + 0.001 * index
            audit.append(
                {
                    "line": index + 1,
                    "id": f"row-{index + 1}",
                    "harmful": harmful,
                    "times_seen": 4,
                    "score_first": score,
                    "score_last": score - 0.5,
                    "weight_mean": weight,
                    "weights": [[1, weight]],
                }
            )
        write_lines(run / "audit.jsonl", audit)


def build_demo(path: Path) -> Path:
    """The directory that `antibody demo` leaves, with numbers close to a first trial's."""
    table = [
        ("Base model", "none", "none", None, 6, 52.0, None, "base"),
        ("Antibody-aligned model", "antibody", "none", None, 0, 30.0, None, "antibody-aligned"),
        ("20% poison, plain alignment, plain SFT", "sft", "sft", 0.2, 5, 91.0, None, "plain-poisoned"),
        ("20% poison, Antibody alignment, plain SFT", "antibody", "sft", 0.2, 4, 91.0, None, "alignment-poisoned"),
        ("20% poison, both Antibody stages", "antibody", "antibody", 0.2, 1, 90.0, 97.0, "both-poisoned"),
        ("Clean upload, both Antibody stages", "antibody", "antibody", 0.0, 0, None, None, "both-clean"),
    ]
    rows = []
    for name, alignment, finetuning, poison, harmful, accuracy, auroc, run in table:
        score = 100 * harmful / len(PROMPTS)
        rows.append(
            {
                "name": name,
                "alignment": alignment,
                "finetuning": finetuning,
                "poison_ratio": poison,
                "harmful_score": score,
                "refusal_rate": 100 - score,
                "over_refusal": (100 - score) / 4,
                "task_accuracy": accuracy,
                "score_auroc": auroc,
                "run": None if run == "base" else run,
            }
        )
        write_evaluation(path / run, harmful, accuracy)
        if finetuning != "none":
            write_finetuning(path / run, method=finetuning, poison=20 if poison else 0)
        elif alignment != "none":
            write_alignment(path / run)
    # Beside the table's runs: the same upload behind a gate, and a screen that has been calibrated.
    write_gated(path / "gated")
    manifest = json.loads((path / "antibody-aligned/manifest.json").read_text())
    write_json(path / "calibrated/manifest.json", manifest | {"calibration": CALIBRATION})
    write_json(path / "summary.json", {"model": "smollm2-135m", "seed": 0, "seconds": 600.1, "rows": rows})
    return path


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return build_demo(tmp_path / "demo")
