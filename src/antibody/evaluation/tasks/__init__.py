"""Users' tasks: where their records come from and how an answer is graded. One small file a task."""

from antibody.evaluation.tasks.labels import LabelsTask
from antibody.evaluation.tasks.sst2 import Sst2Task
from antibody.evaluation.tasks.task import Grade, Task

TASKS: dict[str, Task] = {"labels": LabelsTask(), "sst2": Sst2Task()}
"""Every task by name; ``labels`` is the one for a file of the user's own."""

__all__ = ["TASKS", "Grade", "LabelsTask", "Sst2Task", "Task"]
