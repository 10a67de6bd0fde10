"""`evaluate`: a model in, figures and the answers they were counted from out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from antibody.data.records import Record
from antibody.data.sources import load_prompts, load_records, load_refusals
from antibody.errors import UsageError
from antibody.evaluation.accuracy import evaluate_task
from antibody.evaluation.harmful import evaluate_harmful
from antibody.evaluation.judges import JUDGES
from antibody.evaluation.results import write_result
from antibody.evaluation.screening import refusal_margin, screen
from antibody.evaluation.tasks import TASKS
from antibody.models.base import BaseModel
from antibody.models.run import is_run, load_model, refusals_of

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None] | None]]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Options of an evaluation.

    Attributes:
        model: smollm2-135m, a Hub id, a local folder or a run.
        prompts: Harmful prompts to answer: a .jsonl or .parquet file with `prompt`, a part of the corpus, or none.
        task: A task to answer: a file of prompts and labels, a part of the corpus such as embedded:task_test, or the
            name of a task with --task-data.
        task_data: The file of a named task.
        judge: Who reads the answers.
        name: Folder of the results on the prompts, evaluation/NAME; the task's is evaluation/task.
        output: Where evaluation/ goes; default the run itself. Needed for a model that is not a run.
        max_new_tokens: Longest answer to a harmful prompt. Published: 512; most verdicts stand in the first sentence.
        batch_size: Prompts decoded together.
        limit: Use this many prompts and task rows, spread evenly over the file. All by default.
        dtype: auto (bfloat16 where the hardware has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
        trust_remote_code: Run Python code that the model ships.
    """

    model: str = "smollm2-135m"
    prompts: str = "embedded:harmful_evaluation"
    task: str | None = None
    task_data: str | None = None
    judge: str = "embedded"
    name: str = "harmful"
    output: Path | None = None
    max_new_tokens: int = 64
    batch_size: int = 32
    limit: int | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    trust_remote_code: bool = False


def no_progress(description: str, total: int) -> AbstractContextManager[None]:
    return nullcontext()


def evaluate(settings: EvaluationSettings, *, progress: Progress = no_progress) -> dict[str, Any]:
    """Measures the harmful score, the refusal margin and the accuracy on a task, as asked for, and saves all of it.

    Args:
        settings: What to measure on what.
        progress: Opens a progress display for a number of prompts.

    Returns:
        The metrics of each evaluation by its name.

    Raises:
        UsageError: The settings contradict each other.
        DataError: A file cannot be used.
        ModelError: The model cannot be loaded.
    """
    if settings.output is None and not is_run(settings.model):
        raise UsageError(
            f"{settings.model} is not a run, so there is no place for the results.",
            hint="Give --output DIR.",
            code="output_missing",
        )
    if settings.judge not in JUDGES:
        raise UsageError(
            f"There is no judge {settings.judge!r}.", hint=f"Use one of {', '.join(JUDGES)}.", code="unknown_judge"
        )
    folder = (settings.output or Path(settings.model)) / "evaluation"
    prompts = _prompts(settings)
    task = _task(settings)
    model = load_model(
        settings.model, dtype=settings.dtype, device=settings.device, trust_remote_code=settings.trust_remote_code
    )
    results = {}
    if prompts:
        results[settings.name] = _answer_prompts(settings, model, prompts, folder, progress)
    if task is not None:
        results["task"] = _answer_task(settings, model, *task, folder, progress)
    return results


def _answer_prompts(
    settings: EvaluationSettings,
    model: BaseModel,
    prompts: Sequence[Record],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    with progress(f"Answering {settings.name} prompts", len(prompts)) as advance:
        result = evaluate_harmful(
            model.model,
            model.tokenizer,
            prompts,
            JUDGES[settings.judge](),
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            progress=advance,
        )
    margin = None
    if all(record.response for record in prompts):
        margin = refusal_margin(
            screen(model.model, model.tokenizer, prompts, load_refusals(refusals_of(settings.model)))
        )
    metrics = result.metrics | {
        "name": settings.name,
        "model": settings.model,
        "source": settings.prompts,
        "refusal_margin": margin,
    }
    write_result(folder / settings.name, metrics, result.generations, result.verdicts)
    return metrics


def _answer_task(
    settings: EvaluationSettings,
    model: BaseModel,
    name: str,
    records: Sequence[Record],
    source: str,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    with progress("Answering the task", len(records)) as advance:
        result = evaluate_task(
            model.model, model.tokenizer, records, TASKS[name], batch_size=settings.batch_size, progress=advance
        )
    metrics = result.metrics | {"name": "task", "model": settings.model, "source": source}
    write_result(folder / "task", metrics, result.generations, result.verdicts)
    return metrics


def _prompts(settings: EvaluationSettings) -> list[Record]:
    return [] if settings.prompts == "none" else _spread(load_prompts(settings.prompts).records, settings.limit)


def _task(settings: EvaluationSettings) -> tuple[str, list[Record], str] | None:
    """The name of the task, its records and their source."""
    if settings.task is None:
        return None
    if settings.task not in TASKS:
        return "labels", _spread(load_records(settings.task).records, settings.limit), settings.task
    if settings.task_data is None:
        raise UsageError(
            f"The task {settings.task} needs its rows.", hint="Give --task-data FILE.", code="no_task_data"
        )
    records = TASKS[settings.task].records(Path(settings.task_data))
    return settings.task, _spread(records, settings.limit), settings.task_data


def _spread(records: list[Record], limit: int | None) -> list[Record]:
    """Evenly spaced records, so that a file sorted by category is not cut off after the first few."""
    if limit is None or limit >= len(records):
        return records
    return [records[index * len(records) // limit] for index in range(limit)]
