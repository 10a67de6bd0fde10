import json
import math

import pytest

from antibody.data.records import chat_record
from antibody.evaluation.accuracy import evaluate_task
from antibody.evaluation.harmful import evaluate_harmful
from antibody.evaluation.judges import EmbeddedJudge, Judgement, Verdict
from antibody.evaluation.results import METRICS, write_result
from antibody.evaluation.tasks import LabelsTask

RECORDS = [chat_record(text, "yes", id=f"row-{at}", category="tea") for at, text in enumerate(["a", "bb", "ccc"])]


class Alternating:
    """Calls every other answer harmful and remembers what it was given."""

    name = "alternating"

    def judge(self, requests, answers):
        self.requests = list(requests)
        verdicts = [Verdict.HARMFUL, Verdict.UNPARSABLE]
        return [Judgement(verdicts[at % 2], "its turn") for at, _ in enumerate(answers)]


def test_evaluate_harmful_joins_answers_judgements_and_figures(tiny_model, tiny_tokenizer):
    judge = Alternating()
    result = evaluate_harmful(tiny_model, tiny_tokenizer, RECORDS, judge, max_new_tokens=4, batch_size=2)
    assert judge.requests == ["a", "bb", "ccc"]
    assert [row["id"] for row in result.generations] == ["row-0", "row-1", "row-2"]
    assert set(result.generations[0]) == {"id", "prompt", "answer", "category"}
    assert result.verdicts[1] == {"id": "row-1", "verdict": "unparsable", "reason": "its turn"}
    assert result.metrics["harmful_score"] == pytest.approx(200 / 3)
    assert result.metrics["unparsable_rate"] == pytest.approx(100 / 3)
    assert result.metrics["judge"] == "alternating"
    assert result.metrics["rows"] == 3


def test_evaluate_harmful_of_nothing_is_no_judgement(tiny_model, tiny_tokenizer):
    result = evaluate_harmful(tiny_model, tiny_tokenizer, [], EmbeddedJudge(), max_new_tokens=4, batch_size=2)
    assert math.isnan(result.metrics["harmful_score"])


def test_evaluate_task_grades_every_answer(tiny_model, tiny_tokenizer, monkeypatch):
    answers = {"a": "Yes.", "bb": "no", "ccc": "tea"}
    monkeypatch.setattr(
        "antibody.evaluation.accuracy.generate",
        lambda model, tokenizer, prompts, **options: [answers[prompt[0]["content"]] for prompt in prompts],
    )
    records = [*RECORDS, chat_record("bb", "no", id="row-3")]
    result = evaluate_task(tiny_model, tiny_tokenizer, records, LabelsTask(), batch_size=2)
    assert result.verdicts == [
        {"id": "row-0", "correct": True, "expected": "yes", "predicted": "yes"},
        {"id": "row-1", "correct": False, "expected": "yes", "predicted": "no"},
        {"id": "row-2", "correct": False, "expected": "yes", "predicted": None},
        {"id": "row-3", "correct": True, "expected": "no", "predicted": "no"},
    ]
    assert result.metrics["task_accuracy"] == 50.0
    assert result.metrics["unparsable_rate"] == 25.0


def test_evaluate_task_generates(tiny_model, tiny_tokenizer):
    result = evaluate_task(tiny_model, tiny_tokenizer, RECORDS, LabelsTask(), batch_size=2)
    assert result.metrics["task_accuracy"] == 0.0
    assert all(row["answer"] for row in result.generations)


def test_write_result_writes_three_files(tmp_path):
    folder = tmp_path / "evaluation" / "harmful"
    write_result(
        folder,
        {"kind": "harmful", "rows": 1, "harmful_score": math.nan, "interval": [0.0, math.nan]},
        [{"id": "row-1", "answer": "thé\nchaud"}],
        [{"id": "row-1", "verdict": "neither"}],
    )
    assert sorted(path.name for path in folder.iterdir()) == ["generations.jsonl", "metrics.json", "verdicts.jsonl"]
    assert (folder / "generations.jsonl").read_text(encoding="utf-8") == '{"id": "row-1", "answer": "thé\\nchaud"}\n'
    assert (folder / "verdicts.jsonl").read_text(encoding="utf-8") == '{"id": "row-1", "verdict": "neither"}\n'
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == dict.fromkeys(METRICS) | {"kind": "harmful", "rows": 1, "interval": [0.0, None]}


def test_figures_never_stand_beside_other_answers(tmp_path):
    write_result(tmp_path, {"rows": 1}, [{"id": "old"}], [])
    with pytest.raises(TypeError):
        write_result(tmp_path, {"rows": 2}, [{"id": "new"}], [{"id": object()}])
    assert not (tmp_path / "metrics.json").exists()
