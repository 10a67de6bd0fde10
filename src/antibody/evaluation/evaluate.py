"""`evaluate`: a model in, figures and the answers they were counted from out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from antibody.data.records import Record
from antibody.data.sources import load_prompts, load_records, load_refusals
from antibody.errors import UsageError
from antibody.evaluation.accuracy import evaluate_task
from antibody.evaluation.harmful import evaluate_harmful
from antibody.evaluation.judges import Judge, make_judge
from antibody.evaluation.results import write_result
from antibody.evaluation.screening import refusal_margin, screen
from antibody.evaluation.settings import TASK_NAME, EvaluationSettings
from antibody.evaluation.tasks import JudgedTask, Task, is_task, make_task
from antibody.evaluation.tasks.labels import LabelsTask
from antibody.files import refuse_existing
from antibody.models.base import BaseModel
from antibody.models.run import is_run, load_model, refusals_of
from antibody.progress import counted
from antibody.reports import write_card

KEEP_OR_REPLACE = {
    "prompts": "Use --force to replace it, --output to write elsewhere, or --name for other prompts; with a task, "
    "--prompts none leaves them out.",
    "task": "Use --force to replace it or --output to write elsewhere; without --task it is left as it is.",
}


def evaluate(settings: EvaluationSettings, *, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Measures the harmful score, the refusal margin and the accuracy on a task, as asked for, and saves all of it.

    Args:
        settings: What to measure on what.
        progress: Called after every batch with the number of prompts, then of the task's rows, answered so far. One
            that raises ends the evaluation, of which nothing is saved that is not complete.

    Returns:
        The metrics of each evaluation by its name.

    Raises:
        UsageError: The settings contradict each other; ``file_exists``, where there are earlier results.
        DataError: A file cannot be used.
        ModelError: The model cannot be loaded.
    """
    if settings.output is None and not is_run(settings.model):
        raise UsageError(
            f"{settings.model} is not a run, so there is no place for the results.",
            hint="Give --output DIR.",
            code="output_missing",
        )
    folder = (settings.output or Path(settings.model)) / "evaluation"
    for kind, name in settings.folders.items():
        refuse_existing(folder / name / "metrics.json", force=settings.force, hint=KEEP_OR_REPLACE[kind])
    # Before the model, so that a judge that cannot be used is known at once.
    judge = make_judge(settings.judge)
    prompts = _prompts(settings)
    task = _task(settings)
    model = load_model(
        settings.model, dtype=settings.dtype, device=settings.device, trust_remote_code=settings.trust_remote_code
    )
    results = {}
    if prompts:
        results[settings.folders["prompts"]] = _answer_prompts(settings, model, judge, prompts, folder, progress)
    if task is not None:
        results[TASK_NAME] = _answer_task(settings, model, *task, folder, progress)
    if (folder.parent / "manifest.json").exists():
        write_card(folder.parent)
    return results


def sample(records: list[Record], limit: int | None) -> list[Record]:
    """The same sample every time, in order. Not every n-th record: files that take turns by label would lose some."""
    if limit is None or limit >= len(records):
        return records
    return [records[index] for index in sorted(Random(0).sample(range(len(records)), limit))]


def _answer_prompts(
    settings: EvaluationSettings,
    model: BaseModel,
    judge: Judge,
    prompts: Sequence[Record],
    folder: Path,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    margin = None
    if settings.refusal_margin and all(record.response for record in prompts):
        refusals = load_refusals(refusals_of(settings.model))
        rows = screen(model.model, model.tokenizer, prompts, refusals, max_length=settings.max_length)
        margin = refusal_margin(rows)
    name = settings.folders["prompts"]
    with counted(f"Answering {name} prompts", len(prompts)) as advance:
        result = evaluate_harmful(
            model.model,
            model.tokenizer,
            prompts,
            judge,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            progress=_both(advance, progress),
        )
    metrics = (result.safe_metrics if settings.safe else result.metrics) | {
        "name": name,
        "model": settings.model,
        "source": settings.prompts,
        "refusal_margin": margin,
    }
    write_result(folder / name, metrics, result.generations, result.verdicts)
    return metrics


def _answer_task(
    settings: EvaluationSettings,
    model: BaseModel,
    task: Task | JudgedTask,
    records: Sequence[Record],
    source: str,
    folder: Path,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    with counted("Answering the task", len(records)) as advance:
        result = evaluate_task(
            model.model,
            model.tokenizer,
            records,
            task,
            batch_size=settings.batch_size,
            progress=_both(advance, progress),
        )
    metrics = result.metrics | {"name": TASK_NAME, "model": settings.model, "source": source}
    write_result(folder / TASK_NAME, metrics, result.generations, result.verdicts)
    return metrics


def _both(shown: Callable[[int], None], told: Callable[[int], None] | None) -> Callable[[int], None]:
    def progress(done: int) -> None:
        shown(done)
        if told is not None:
            told(done)

    return progress


def _prompts(settings: EvaluationSettings) -> list[Record]:
    return [] if settings.prompts == "none" else sample(load_prompts(settings.prompts), settings.limit)


def _task(settings: EvaluationSettings) -> tuple[Task | JudgedTask, list[Record], str] | None:
    """The task, its records and their source."""
    if settings.task is None:
        return None
    if not is_task(settings.task):
        return LabelsTask(), sample(load_records(settings.task).records, settings.task_limit), settings.task
    if settings.task_data is None:
        raise UsageError(
            f"The task {settings.task} needs its rows.", hint="Give --task-data FILE.", code="no_task_data"
        )
    task = make_task(settings.task)
    records = task.records(settings.task_data)
    return task, sample(records, settings.task_limit), settings.task_data
