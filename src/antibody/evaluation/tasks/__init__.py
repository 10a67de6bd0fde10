"""Users' tasks: where their records come from and how an answer is graded. One small file a task."""

from antibody.evaluation.tasks.ag_news import AG_NEWS
from antibody.evaluation.tasks.classification import ClassificationTask
from antibody.evaluation.tasks.gsm8k import Gsm8kTask
from antibody.evaluation.tasks.labels import LabelsTask
from antibody.evaluation.tasks.sst2 import SST2
from antibody.evaluation.tasks.task import Grade, Task

TASKS: dict[str, Task] = {"labels": LabelsTask(), "sst2": SST2, "ag_news": AG_NEWS, "gsm8k": Gsm8kTask()}
"""Every task by name; ``labels`` is the one for a file of the user's own."""

__all__ = ["TASKS", "ClassificationTask", "Grade", "Gsm8kTask", "LabelsTask", "Task"]
