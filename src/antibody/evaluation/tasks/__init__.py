"""Users' tasks: where their records come from and how an answer is graded. One small file a task."""

from collections.abc import Callable

from antibody.errors import UsageError
from antibody.evaluation.tasks.ag_news import AG_NEWS
from antibody.evaluation.tasks.classification import ClassificationTask
from antibody.evaluation.tasks.gsm8k import Gsm8kTask
from antibody.evaluation.tasks.labels import LabelsTask
from antibody.evaluation.tasks.sst2 import SST2
from antibody.evaluation.tasks.task import Grade, JudgedTask, Task
from antibody.evaluation.tasks.win_rate import WinRateTask, win_rate

TASKS: dict[str, Task] = {"labels": LabelsTask(), "sst2": SST2, "ag_news": AG_NEWS, "gsm8k": Gsm8kTask()}
"""Every task by name; ``labels`` is the one for a file of the user's own."""

JUDGED_TASKS: dict[str, Callable[[str], JudgedTask]] = {"win_rate": win_rate}
"""Tasks that need a judge, each made from what stands after the colon of ``NAME:JUDGE``."""


def is_task(choice: str) -> bool:
    """Whether that names a task, rather than rows."""
    return choice in TASKS or kind_of_task(choice) in JUDGED_TASKS


def kind_of_task(choice: str) -> str:
    """Its name without its judge: what decides how rows are put as prompts."""
    return choice.partition(":")[0]


def make_task(choice: str) -> Task | JudgedTask:
    """The task that a user named: ``sst2``, ``win_rate:chat:URL#MODEL`` ...

    Raises:
        UsageError: There is no such task, its judge is wrong or missing, or a package it needs is.
    """
    if choice in TASKS:
        return TASKS[choice]
    kind, _, judge = choice.partition(":")
    if kind not in JUDGED_TASKS:
        known = [*TASKS, *(f"{name}:JUDGE" for name in JUDGED_TASKS)]
        raise UsageError(f"There is no task {choice!r}.", hint=f"Use one of {', '.join(known)}.", code="unknown_task")
    return JUDGED_TASKS[kind](judge)


__all__ = [
    "JUDGED_TASKS",
    "TASKS",
    "ClassificationTask",
    "Grade",
    "Gsm8kTask",
    "JudgedTask",
    "LabelsTask",
    "Task",
    "WinRateTask",
    "is_task",
    "kind_of_task",
    "make_task",
]
