"""Fine-tuning accuracy (FA): a model's answers to the user's task, graded one by one."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from antibody.data.records import Record
from antibody.evaluation.generation import generate
from antibody.evaluation.measures import percent, wilson_interval
from antibody.evaluation.tasks.task import Grade, JudgedTask, Task


@dataclass(frozen=True)
class TaskResult:
    """Answers, grades and figures, ready for `results.write_result`.

    Attributes:
        generations: One ``{"id", "prompt", "answer", "category"}`` a record.
        expected: The right answers, in the same order.
        grades: One a record, in the same order.
        metrics: Percent, see `results.METRICS`; an answer without a readable prediction is wrong and is counted in
            ``unparsable_rate`` too, unless it is a judge that did not say: the rows of ``unjudged_rate`` are in no
            accuracy, which is over ``judged_rows``; ``task_accuracy_interval`` is the 95% Wilson interval.
    """

    generations: list[dict[str, object]]
    expected: list[str]
    grades: list[Grade]
    metrics: dict[str, object]

    @property
    def verdicts(self) -> list[dict[str, object]]:
        """One ``{"id", "correct", "expected", "predicted"}`` a record."""
        return [
            {"id": generation["id"], "correct": grade.correct, "expected": expected, "predicted": grade.predicted}
            for generation, expected, grade in zip(self.generations, self.expected, self.grades, strict=True)
        ]


def evaluate_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    task: Task | JudgedTask,
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> TaskResult:
    """Generate an answer to every record's prompt and grade it against the record's response.

    Args:
        model: See `generation.generate`.
        tokenizer: See `generation.generate`.
        records: Prompts with their right answers.
        task: Grades an answer and says how long it may be.
        batch_size: Prompts decoded together.
        progress: Called after every batch with the number of prompts answered so far.
    """
    started = time.perf_counter()
    answers = generate(
        model,
        tokenizer,
        [record.prompt for record in records],
        max_new_tokens=task.max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    return grade_answers(records, answers, task, started=started)


def grade_answers(
    records: Sequence[Record], answers: Sequence[str], task: Task | JudgedTask, *, started: float | None = None
) -> TaskResult:
    """Grade answers that a model gave to every record's prompt.

    Args:
        records: Prompts with their right answers.
        answers: One a record, in the same order.
        task: Grades an answer.
        started: When the work on them began, by `time.perf_counter`; now by default.
    """
    started = time.perf_counter() if started is None else started
    if isinstance(task, JudgedTask):
        grades = task.graded(records, answers)
    else:
        fitted = task.fitted(records)
        grades = [fitted.grade(answer, record.response) for record, answer in zip(records, answers, strict=True)]
    judged = [grade.correct for grade in grades if not math.isnan(grade.correct)]
    return TaskResult(
        generations=[
            {"id": record.id, "prompt": record.request, "answer": answer, "category": record.category}
            for record, answer in zip(records, answers, strict=True)
        ],
        expected=[record.response for record in records],
        grades=grades,
        metrics={
            "kind": "task",
            "rows": len(grades),
            "task_accuracy": percent(sum(judged), len(judged)),
            "task_accuracy_interval": list(wilson_interval(sum(judged), len(judged))),
            "judged_rows": len(judged),
            "unjudged_rate": percent(len(grades) - len(judged), len(grades)),
            "unparsable_rate": percent(sum(grade.predicted is None for grade in grades), len(grades)),
            "seconds": time.perf_counter() - started,
        },
    )
