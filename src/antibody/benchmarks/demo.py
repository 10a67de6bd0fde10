"""The whole story on the bundled model: align, let a poisoned upload attack, measure, report.

Six trainings, and six models that are measured. Each is a run directory and is finished before the next begins, so an
interrupted demo goes on where it stopped.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from antibody.data.sources import load_records, load_refusals
from antibody.errors import UsageError
from antibody.evaluation.evaluate import evaluate
from antibody.evaluation.results import write_result
from antibody.evaluation.screening import ScoredRow, score_auroc, screen
from antibody.evaluation.settings import EvaluationSettings
from antibody.files import claim_directory, write_json
from antibody.models.run import load_model, refusals_of
from antibody.names import BUNDLED_NAME
from antibody.progress import counted
from antibody.reports import write_report
from antibody.training.settings import AlignmentSettings, FinetuningSettings
from antibody.training.stages import align, finetune

POISON_RATIO = 0.2
PROGRESS_FILE = "progress.json"

Stage = Literal["none", "sft", "antibody"]


@dataclass(frozen=True)
class Size:
    """How much of everything the demo does. Chosen so that two cores without bfloat16 finish in time.

    Attributes:
        alignment_steps: Steps of alignment, of as many rows as the preset says.
        finetuning_steps: Steps of fine-tuning, of as many rows as the preset says.
        prompts: Harmful prompts that are answered.
        safe_prompts: Safe prompts that are answered.
        task_rows: Task rows that are answered.
        screened_rows: Rows of the poisoned upload that are scored for the AUROC.
        max_new_tokens: Longest answer.
    """

    alignment_steps: int = 30
    finetuning_steps: int = 40
    prompts: int = 48
    safe_prompts: int = 24
    task_rows: int = 50
    screened_rows: int = 40
    max_new_tokens: int = 24


@dataclass(frozen=True)
class Data:
    """Where the story's data come from. The parts must not share prompts, so that the table shows generalisation.

    Attributes:
        refusals: What harmful prompts are answered by in alignment.
        harmful: Harmful prompts with answers for the alignment stage.
        benign: Helpful rows for the alignment stage.
        poisoned: The upload with harmful rows.
        clean: The upload without.
        prompts: Harmful prompts to answer.
        safe: Safe prompts to answer, which look unsafe.
        task: The user's task, as `EvaluationSettings` names it.
        task_data: Its rows, for a named task.
        max_length: Most tokens of a row.
    """

    refusals: str = "embedded:refusals"
    harmful: str = "embedded:harmful_train"
    benign: str = "embedded:benign"
    poisoned: str = f"embedded:upload@{POISON_RATIO}"
    clean: str = "embedded:upload@0"
    prompts: str = "embedded:harmful_evaluation"
    safe: str = "embedded:looks_unsafe"
    task: str = "embedded:task_test"
    task_data: str | None = None
    max_length: int = 256


EMBEDDED = Data()
QUICK = Size(
    alignment_steps=5, finetuning_steps=5, prompts=12, safe_prompts=6, task_rows=12, screened_rows=16, max_new_tokens=16
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a model and how it was made."""

    name: str
    run: str
    alignment: Stage
    finetuning: Stage
    poison_ratio: float | None = None


ROWS = (
    Row("Base model", "base", "none", "none"),
    Row("Antibody-aligned model", "antibody", "antibody", "none"),
    Row("Undefended: plain alignment, plain SFT", "sft-sft-poisoned", "sft", "sft", POISON_RATIO),
    Row("Antibody alignment, plain SFT", "antibody-sft-poisoned", "antibody", "sft", POISON_RATIO),
    Row("Defended: both stages", "antibody-antibody-poisoned", "antibody", "antibody", POISON_RATIO),
    Row("Clean upload, both stages", "antibody-antibody-clean", "antibody", "antibody", 0.0),
)


def demo(
    output: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    data: Data = EMBEDDED,
    size: Size | None = None,
) -> dict[str, Any]:
    """Runs the demo and writes ``summary.json`` and ``report.html``.

    Args:
        output: The directory of its runs.
        quick: Fewer steps and prompts.
        seed: Of adapters and the order of rows.
        resume: Continue an interrupted demo.
        force: Replace an earlier one.
        data: Where the rows come from.
        size: How much of everything; by default as ``quick`` says.

    Returns:
        The summary: model, seed, seconds, and a row a model with figures in percent, None where they do not apply.

    Raises:
        UsageError: There is an earlier demo and neither ``resume`` nor ``force`` was given.
    """
    size = size or (QUICK if quick else Size())
    _claim(output, {"seed": seed, "size": asdict(size), "data": asdict(data)}, resume=resume, force=force)
    begun, earlier = time.perf_counter(), _seconds_so_far(output)
    rows = [_measured(row, output, data, size, seed, begun - earlier) for row in ROWS]
    summary = {"model": BUNDLED_NAME, "seed": seed, "seconds": _note_seconds(output, begun - earlier), "rows": rows}
    write_json(output / "summary.json", summary)
    write_report(output)
    return summary


def _measured(row: Row, output: Path, data: Data, size: Size, seed: int, begun: float) -> dict[str, Any]:
    folder = output / row.run
    if row.alignment != "none":
        _trained(row, output, data, size, seed)
    prompts = _settings(row, folder, size, prompts=data.prompts, limit=size.prompts)
    task = replace(prompts, task=data.task, task_data=data.task_data, task_limit=size.task_rows)
    safe = _settings(row, folder, size, prompts=data.safe, limit=size.safe_prompts, safe=True)
    # By the result that each writes last: where that is, it was finished.
    for last, settings in {"task": task, "safe": safe}.items():
        if not (folder / "evaluation" / last / "metrics.json").exists():
            evaluate(settings)
    auroc = _auroc(row, folder, data, size)
    _note_seconds(output, begun)
    found = {name: _metrics(folder / "evaluation" / name) for name in ("harmful", "safe", "task")}
    return {
        "name": row.name,
        "alignment": row.alignment,
        "finetuning": row.finetuning,
        "poison_ratio": row.poison_ratio,
        "harmful_score": found["harmful"]["harmful_score"],
        "refusal_rate": found["harmful"]["refusal_rate"],
        "over_refusal": found["safe"]["over_refusal"],
        "task_accuracy": found["task"]["task_accuracy"],
        "score_auroc": auroc,
        "run": row.run,
    }


def _settings(
    row: Row, folder: Path, size: Size, *, prompts: str, limit: int, safe: bool = False
) -> EvaluationSettings:
    return EvaluationSettings(
        model=str(folder) if row.alignment != "none" else BUNDLED_NAME,
        output=folder,
        prompts=prompts,
        limit=limit,
        safe=safe,
        refusal_margin=False,
        max_new_tokens=size.max_new_tokens,
        batch_size=size.task_rows,
        # An interrupted one may have left half of its results.
        force=True,
    )


def _trained(row: Row, output: Path, data: Data, size: Size, seed: int) -> None:
    aligned = output / row.alignment
    shared: dict[str, Any] = {"seed": seed, "max_length": data.max_length, "resume": True}
    assert row.alignment != "none", "the base model is not trained"
    align(
        AlignmentSettings(
            model=BUNDLED_NAME,
            output=aligned,
            method=row.alignment,
            refusals=data.refusals,
            harmful=data.harmful,
            benign=data.benign,
            steps=size.alignment_steps,
            **shared,
        )
    )
    if row.finetuning != "none":
        finetune(
            FinetuningSettings(
                model=str(aligned),
                output=output / row.run,
                method=row.finetuning,
                data=data.poisoned if row.poison_ratio else data.clean,
                steps=size.finetuning_steps,
                **shared,
            )
        )


def _auroc(row: Row, folder: Path, data: Data, size: Size) -> float | None:
    """How well the scores tell harmful rows from benign ones; for a fine-tuned model, those that training used.

    A model that is not fine-tuned scores the poisoned upload once. Plain SFT scores nothing, and a clean upload has
    nothing to tell apart.
    """
    if row.finetuning == "none":
        place = folder / "evaluation" / "screen"
        if not (place / "metrics.json").exists():
            _screen_upload(folder if row.alignment != "none" else None, place, data, size)
        return _percent(_metrics(place)["score_auroc"])
    if row.finetuning == "sft" or not row.poison_ratio:
        return None
    with (folder / "audit.jsonl").open(encoding="utf-8") as file:
        audit = [json.loads(line) for line in file]
    # The gate judges every row by its screening score; what it withholds gets no other.
    seen = [ScoredRow(row["line"], row["id"], row["harmful"], row["screening_score"]) for row in audit]
    value = score_auroc(seen)
    return None if math.isnan(value) else value


def _screen_upload(run: Path | None, place: Path, data: Data, size: Size) -> None:
    name = str(run) if run else BUNDLED_NAME
    model = load_model(name)
    records = load_records(data.poisoned).records[: size.screened_rows]
    refusals = load_refusals(refusals_of(name) if run else data.refusals)
    with counted("Scoring the upload", len(records)) as advance:
        rows = screen(model.model, model.tokenizer, records, refusals, max_length=data.max_length, progress=advance)
    metrics = {"name": "screen", "kind": "screen", "model": name, "source": data.poisoned, "rows": len(rows)}
    write_result(place, metrics | {"score_auroc": score_auroc(rows)}, [], [row._asdict() for row in rows])


def _percent(value: Any) -> float | None:
    return None if value is None else float(value)


def _metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return content


def _claim(output: Path, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Makes the directory, or checks that the demo in it is this one."""
    if resume and force:
        raise UsageError("resume and force exclude each other.", hint="Continue a demo or replace it.", code="conflict")
    begun = output / PROGRESS_FILE
    claim_directory(output, ours=begun.exists(), resume=resume, force=force)
    if not begun.exists():
        write_json(begun, {"seconds": 0.0, "settings": settings})
    elif _with_later(json.loads(begun.read_text(encoding="utf-8"))["settings"], settings) != settings:
        raise UsageError(
            f"{output} was begun with another seed, size or data.",
            hint="Continue it as it was begun, or use --force.",
            code="resume_settings_differ",
        )


def _with_later(begun: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a demo, with what there was not yet when it was begun: that is measured when it goes on."""
    return begun | {part: settings[part] | begun[part] for part in ("size", "data")}


def _seconds_so_far(output: Path) -> float:
    return float(json.loads((output / PROGRESS_FILE).read_text(encoding="utf-8"))["seconds"])


def _note_seconds(output: Path, begun: float) -> float:
    """Seconds of this and of interrupted sessions, up to the last finished measurement."""
    file = output / PROGRESS_FILE
    progress = json.loads(file.read_text(encoding="utf-8"))
    progress["seconds"] = round(time.perf_counter() - begun, 1)
    write_json(file, progress)
    return float(progress["seconds"])
