"""General abilities by lm-eval, on a local task and the tiny model. Without the package only its absence is tested."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from antibody.errors import DataError, UsageError
from antibody.evaluation import abilities
from antibody.evaluation.abilities import check_abilities, measure_abilities
from antibody.models.base import BaseModel

TASK = {
    "task": "sky",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
PREDICTED = ("Is it blue?", "Is it far?", "Is it night?", "Is it raining?")


@pytest.fixture(autouse=True)
def _index_anew() -> Iterator[None]:
    abilities._task_manager.cache_clear()
    yield
    abilities._task_manager.cache_clear()


@pytest.fixture
def model(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> BaseModel:
    return BaseModel(model=tiny_model, tokenizer=tiny_tokenizer, name="tiny", revision=None)


def choice(model: BaseModel, question: str) -> int:
    """Which of yes and no is likelier after the question, by logits of the whole text."""
    chat = [{"role": "user", "content": question}]
    asked = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    prompt = model.tokenizer(asked, add_special_tokens=False)["input_ids"]
    sums = []
    for word in ("yes", "no"):
        ids = prompt + model.tokenizer(word, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            log_probs = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(log_probs[at - 1, ids[at]]) for at in range(len(prompt), len(ids))))
    return sums.index(max(sums))


def folder_of(place: Path, answers: list[int]) -> Path:
    place.mkdir()
    rows = place / "sky.jsonl"
    rows.write_text("".join(f'{{"question": "{q}", "answer": {a}}}\n' for q, a in zip(PREDICTED, answers, strict=True)))
    (place / "sky.yaml").write_text(yaml.safe_dump(TASK | {"dataset_kwargs": {"data_files": {"test": str(rows)}}}))
    return place


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_score_is_the_share_that_the_model_finds_likelier(model: BaseModel, tmp_path: Path) -> None:
    """Three of four labels are what the model finds likelier, so it is 75% right; of the first two, all."""
    pytest.importorskip("lm_eval")
    labels = [choice(model, question) for question in PREDICTED]
    labels[3] = 1 - labels[3]
    folder = folder_of(tmp_path / "tasks", labels)
    check_abilities(["sky", "arc_easy"], folder)
    for rows, score, count in ((None, 75.0, 4), (2, 100.0, 2)):
        [ability] = measure_abilities(model, ["sky"], folder=folder, rows=rows, batch_size=2)
        assert (ability.task, ability.score, ability.metric, ability.rows) == ("sky", score, "acc,none", count)
    with pytest.raises(UsageError, match="knows no task 'sea'"):
        check_abilities(["sea"], folder)
    (folder / "sky.jsonl").unlink()
    with pytest.raises(DataError, match="rows of sky cannot be loaded"):
        measure_abilities(model, ["sky"], folder=folder, rows=None, batch_size=2)


def test_without_the_package_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UsageError, match="need the package lm-eval"):
        check_abilities(["arc_easy"], None)
