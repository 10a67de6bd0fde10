"""General ability: tasks of `lm-eval` (EleutherAI's harness), asked of a model that is loaded already.

Fine-tuning and defences may cost what a model could do before; these tasks say how much. A chat model is asked through
its chat template. The figure of a task is the first that it has of `METRICS`.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from antibody.errors import DataError, UsageError
from antibody.models.base import BaseModel

# By falling preference where a task has several. All are shares of rows that were answered rightly.
METRICS = ("acc_norm", "acc", "exact_match")


class Ability(NamedTuple):
    """A model's figure on one task.

    Attributes:
        task: Its name in lm-eval.
        score: Percent.
        metric: Which of lm-eval's figures that is, with its filter.
        rows: Rows it is over; None for a group of tasks.
    """

    task: str
    score: float
    metric: str
    rows: int | None


def check_abilities(tasks: Sequence[str], folder: Path | None) -> None:
    """Says what is wrong before anything is trained.

    Args:
        tasks: Names in lm-eval, of tasks or groups.
        folder: YAML files of further tasks.

    Raises:
        UsageError: The package is missing, or knows no such task.
    """
    known = set(_task_manager(folder).all_tasks)
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise UsageError(
            f"lm-eval knows no task {unknown[0]!r}.",
            hint="`lm-eval ls tasks` lists all; name the folder of tasks of your own.",
            code="unknown_task",
        )


def measure_abilities(
    model: BaseModel, tasks: Sequence[str], *, folder: Path | None, rows: int | None, batch_size: int
) -> list[Ability]:
    """Asks a model.

    Args:
        model: The model.
        tasks: Names in lm-eval.
        folder: YAML files of further tasks.
        rows: The first so many rows of every task; all by default.
        batch_size: Rows together.

    Returns:
        One ability a task, in order.

    Raises:
        UsageError: The package is missing, or a task has none of `METRICS`.
        DataError: A task's rows cannot be loaded.
    """
    manager = _task_manager(folder)
    import datasets  # noqa: PLC0415 - takes seconds
    from lm_eval.evaluator import simple_evaluate  # noqa: PLC0415 - optional
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - optional

    asked = HFLM(
        pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size, device=str(model.model.device)
    )
    try:
        found = simple_evaluate(
            model=asked,
            tasks=list(tasks),
            task_manager=manager,
            limit=rows,
            apply_chat_template=model.tokenizer.chat_template is not None,
            # Our intervals are others; resampling takes minutes.
            bootstrap_iters=0,
            log_samples=False,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"The rows of {', '.join(tasks)} cannot be loaded: {str(error)[:300]}.",
            hint="Check the network and, for a gated set, the login to the Hub.",
            code="hub_unavailable",
        ) from error
    return [_ability(task, found) for task in tasks]


def _ability(task: str, found: dict[str, Any]) -> Ability:
    figures = found["results"].get(task, {})
    for wanted in METRICS:
        # Keys are METRIC,FILTER.
        for metric, value in figures.items():
            if metric.partition(",")[0] == wanted and isinstance(value, float | int) and not math.isnan(value):
                counted = found["n-samples"].get(task)
                return Ability(task, 100 * float(value), metric, None if counted is None else counted["effective"])
    raise UsageError(
        f"The task {task} has none of the figures {', '.join(METRICS)}.", hint="Choose another.", code="unfit_task"
    )


@cache
def _task_manager(folder: Path | None) -> Any:
    """lm-eval's index of tasks, which takes seconds to make."""
    try:
        from lm_eval.tasks import TaskManager  # noqa: PLC0415 - optional
    except ImportError as error:
        raise UsageError(
            "General abilities need the package lm-eval.",
            hint="pip install 'antibody-ft[lm-eval]'.",
            code="package_missing",
        ) from error
    return TaskManager(include_path=None if folder is None else str(folder))
