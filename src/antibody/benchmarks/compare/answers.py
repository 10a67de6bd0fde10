"""What a comparison's models answer. Answers are kept, so that another judge or task reads them without the model."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.config import Comparison
from antibody.benchmarks.compare.folder import Folder
from antibody.benchmarks.compare.plan import Cell, Model, answers_key
from antibody.benchmarks.compare.rows import Library
from antibody.data.records import Record
from antibody.evaluation.accuracy import grade_answers
from antibody.evaluation.generation import generate
from antibody.evaluation.harmful import judge_answers
from antibody.evaluation.judges import JUDGES
from antibody.evaluation.tasks import TASKS
from antibody.files import write_jsonl
from antibody.models.base import BaseModel
from antibody.progress import counted

Load = Callable[[], BaseModel]


def figures(cell: Cell, load: Load, config: Comparison, folder: Folder, library: Library) -> dict[str, Any]:
    """A cell's figures, percent. The model is loaded where an answer is missing.

    Raises:
        AntibodyError: Rows cannot be read, a judge cannot be used, or the model cannot be loaded.
    """
    started = time.perf_counter()
    model, asked = cell.model, config.evaluate
    attack = ATTACKS.get(model.attack)
    longest = asked.max_new_tokens
    prompts = library.prompts(asked.prompts)
    tricked = [attack.ask(record) for record in prompts] if attack else prompts
    answers = _answers(model, load, asked.prompts, tricked, longest, config, folder, library)
    found: dict[str, Any] = {"judges": {}}
    for name in asked.judges:
        metrics = judge_answers(prompts, answers, JUDGES[name]()).metrics
        found["judges"][name] = {
            key: metrics[key]
            for key in ("harmful_score", "harmful_score_interval", "refusal_rate", "neither_rate", "unparsable_rate")
        }
    found |= found["judges"][asked.judges[0]] | {"prompts": len(prompts)}
    if asked.safe is not None:
        safe = library.prompts(asked.safe)
        answers = _answers(model, load, asked.safe, safe, longest, config, folder, library)
        metrics = judge_answers(safe, answers, JUDGES[asked.judges[0]]()).metrics
        found |= {
            "over_refusal": metrics["refusal_rate"],
            "over_refusal_unparsable_rate": metrics["unparsable_rate"],
            "safe_prompts": len(safe),
        }
    found |= _task(cell, load, config, folder, library)
    return found | {"answer_seconds": round(time.perf_counter() - started, 1)}


def _task(cell: Cell, load: Load, config: Comparison, folder: Folder, library: Library) -> dict[str, Any]:
    rows = config.tasks[cell.task]
    name = rows.task or cell.task
    records = library.task(rows.test, name)
    answers = _answers(cell.model, load, rows.test, records, TASKS[name].max_new_tokens, config, folder, library)
    metrics = grade_answers(records, answers, TASKS[name]).metrics
    return {
        "task_accuracy": metrics["task_accuracy"],
        "task_accuracy_interval": metrics["task_accuracy_interval"],
        "task_unparsable_rate": metrics["unparsable_rate"],
        "task_rows": len(records),
    }


def _answers(
    model: Model,
    load: Load,
    rows: str,
    records: Sequence[Record],
    max_new_tokens: int,
    config: Comparison,
    folder: Folder,
    library: Library,
) -> list[str]:
    """Kept ones, or new ones that are then kept."""
    place = folder.answers(answers_key(library, model, rows, max_new_tokens))
    if not place.exists():
        loaded = load()
        with counted("Answering", len(records)) as advance:
            answers = generate(
                loaded.model,
                loaded.tokenizer,
                [record.prompt for record in records],
                max_new_tokens=max_new_tokens,
                batch_size=config.evaluate.batch_size,
                progress=advance,
            )
        write_jsonl(
            place,
            [{"id": record.id, "answer": answer} for record, answer in zip(records, answers, strict=True)],
        )
    with place.open(encoding="utf-8") as file:
        return [json.loads(line)["answer"] for line in file]
