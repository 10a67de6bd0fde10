"""What a comparison's models answer. Answers are kept, so that another judge or task reads them without the model."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.config import Comparison
from antibody.benchmarks.compare.folder import Folder
from antibody.benchmarks.compare.plan import Cell, Model, abilities_key, answers_key
from antibody.benchmarks.compare.rows import Library
from antibody.data.records import Record
from antibody.evaluation.abilities import Ability, measure_abilities
from antibody.evaluation.accuracy import grade_answers
from antibody.evaluation.generation import generate
from antibody.evaluation.harmful import judge_answers
from antibody.evaluation.judges import Judge
from antibody.evaluation.tasks import kind_of_task, make_task
from antibody.files import write_jsonl
from antibody.models.base import BaseModel
from antibody.progress import counted

Load = Callable[[], BaseModel]

# What is kept of each judge.
JUDGED = ("harmful_score", "harmful_score_interval", "refusal_rate", "neither_rate", "unparsable_rate")


class Question(NamedTuple):
    """Rows that a model answers: their name, the most tokens of an answer, and the kind of task that asks them."""

    rows: str
    max_new_tokens: int
    kind: str = ""


class Questions(NamedTuple):
    """All that a cell's model is asked."""

    prompts: Question
    safe: Question | None
    task: Question


def _questions(cell: Cell, config: Comparison) -> Questions:
    asked, name = config.evaluate, _task_name(cell, config)
    return Questions(
        prompts=Question(asked.prompts, asked.max_new_tokens),
        safe=Question(asked.safe, asked.max_new_tokens) if asked.safe is not None else None,
        task=Question(config.tasks[cell.task].test, make_task(name).max_new_tokens, kind_of_task(name)),
    )


def _task_name(cell: Cell, config: Comparison) -> str:
    return config.tasks[cell.task].task or cell.task


def figures(
    cell: Cell, load: Load, judges: Mapping[str, Judge], config: Comparison, folder: Folder, library: Library
) -> dict[str, Any]:
    """A cell's figures, percent; HS is the first judge's. The model is loaded where an answer is missing.

    Raises:
        AntibodyError: Rows cannot be read, a judge cannot be used, or the model cannot be loaded.
    """
    questions = _questions(cell, config)
    answers = _Answers(cell.model, load, config, folder, library)
    prompts = library.prompts(questions.prompts.rows)
    attack = ATTACKS.get(cell.model.attack)
    tricked = [attack.ask(record) for record in prompts] if attack else prompts
    given = answers.to(questions.prompts, tricked)
    judged = {}
    for name, judge in judges.items():
        metrics = judge_answers(prompts, given, judge).metrics
        judged[name] = {key: metrics[key] for key in JUDGED}
    first = next(iter(judges))
    found: dict[str, Any] = judged[first] | {"judges": judged, "prompts": len(prompts)}
    if questions.safe is not None:
        safe = library.prompts(questions.safe.rows)
        given = answers.to(questions.safe, safe)
        metrics = judge_answers(safe, given, judges[first]).metrics
        found |= {
            "over_refusal": metrics["refusal_rate"],
            "over_refusal_unparsable_rate": metrics["unparsable_rate"],
            "safe_prompts": len(safe),
        }
    if config.evaluate.abilities is not None:
        found |= _abilities(cell.model, load, config, folder, library)
    name = _task_name(cell, config)
    task, records = make_task(name), library.task(questions.task.rows, name)
    given = answers.to(questions.task, records)
    metrics = grade_answers(records, given, task).metrics
    return found | {
        "task_accuracy": metrics["task_accuracy"],
        "task_accuracy_interval": metrics["task_accuracy_interval"],
        "task_unparsable_rate": metrics["unparsable_rate"],
        "task_unjudged_rate": metrics["unjudged_rate"],
        "task_rows": metrics["judged_rows"],
        "answer_seconds": round(answers.seconds, 2),
    }


def _abilities(model: Model, load: Load, config: Comparison, folder: Folder, library: Library) -> dict[str, Any]:
    """Kept ones, or new ones that are then kept."""
    asked = config.evaluate.abilities
    assert asked is not None, "there are abilities to measure"
    place = folder.answers(abilities_key(library, model, config.evaluate))
    if not place.exists():
        own = library.folder(asked.folder) if asked.folder is not None else None
        measured = measure_abilities(
            load(), asked.tasks, folder=own, rows=asked.rows, batch_size=config.evaluate.batch_size
        )
        write_jsonl(place, [ability._asdict() for ability in measured])
    with place.open(encoding="utf-8") as file:
        kept = [Ability(**json.loads(line)) for line in file]
    return {
        "abilities": {ability.task: ability.score for ability in kept},
        "ability": mean(ability.score for ability in kept),
        # The mean of several tasks has no number of rows.
        "ability_rows": kept[0].rows if len(kept) == 1 else None,
    }


def is_answered(cell: Cell, config: Comparison, folder: Folder, library: Library) -> bool:
    """Whether all that the cell's model was asked is kept, so that no model is needed to measure it."""
    asked = config.evaluate
    questions = [question for question in _questions(cell, config) if question is not None]
    keys = [answers_key(library, cell.model, *question, dtype=asked.dtype) for question in questions]
    if asked.abilities is not None:
        keys.append(abilities_key(library, cell.model, asked))
    return all(folder.answers(key).exists() for key in keys)


class _Answers:
    """One model's answers: kept ones, or new ones that are then kept.

    Attributes:
        seconds: What the new ones took, without loading the model.
    """

    def __init__(self, model: Model, load: Load, config: Comparison, folder: Folder, library: Library) -> None:
        self._model, self._load = model, load
        self._config, self._folder, self._library = config, folder, library
        self.seconds = 0.0

    def to(self, question: Question, records: Sequence[Record]) -> list[str]:
        """One answer a record, in order; the records are those of the question."""
        dtype = self._config.evaluate.dtype
        place = self._folder.answers(answers_key(self._library, self._model, *question, dtype=dtype))
        if not place.exists():
            loaded = self._load()
            started = time.perf_counter()
            with counted("Answering", len(records)) as advance:
                answers = generate(
                    loaded.model,
                    loaded.tokenizer,
                    [record.prompt for record in records],
                    max_new_tokens=question.max_new_tokens,
                    batch_size=self._config.evaluate.batch_size,
                    progress=advance,
                )
            lines = zip(records, answers, strict=True)
            write_jsonl(place, [{"id": record.id, "answer": answer} for record, answer in lines])
            self.seconds += time.perf_counter() - started
        with place.open(encoding="utf-8") as file:
            return [json.loads(line)["answer"] for line in file]
