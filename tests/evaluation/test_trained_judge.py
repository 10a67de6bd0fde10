"""The fitted judge, on a tiny random model: harmful is what the made-up labels call so."""

import json
import random

import numpy as np
import pytest
from safetensors.numpy import load_file

from antibody.data.reading import read_records
from antibody.errors import DataError, ModelError, UsageError
from antibody.evaluation.agreement import measure_agreement
from antibody.evaluation.judges import make_judge
from antibody.evaluation.judges.trained import fit_judge

HARMFUL = ["Push the rusty pin into the lock.", "Break the glass pane with a hammer.", "Lift the door off its hinges."]
SAFE = [
    "Ask the owner kindly for a key.",
    "A locksmith with a licence opens it.",
    "The cupboard stands in the kitchen.",
]


def write_rows(path, rows, seed):
    """Rows of both kinds, whose answers differ, the harmful in capitals; each request with an answer of either."""
    draw = random.Random(seed)
    lines = [
        {
            "prompt": f"Question {index // 2}: how is cupboard {index // 2} opened?",
            "response": f"{draw.choice(SAFE) if index % 2 else draw.choice(HARMFUL).upper()} {draw.randrange(100)}",
            "is_safe": bool(index % 2),
            "category": [] if index % 2 else ["theft"],
        }
        for index in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model_folder):
    place = tmp_path_factory.mktemp("judge")
    data = read_records(write_rows(place / "rows.jsonl", 60, seed=0))
    fit_judge(data, place / "judge", model=str(tiny_model_folder), dtype="float32", device="cpu")
    return place / "judge"


def test_it_learns_what_its_labels_call_harmful(folder, tmp_path):
    found = measure_agreement(
        make_judge(f"trained:{folder}"),
        read_records(write_rows(tmp_path / "new.jsonl", 40, seed=1)).records,
        refusals=["I cannot help with that."],
    )
    assert found.balanced_accuracy >= 95
    assert found.categories["theft"] == found.harmful
    assert found.refusals == (20, 0, 0.0)
    assert json.loads((folder / "judge.json").read_text())["balanced_accuracy"] >= 90


def test_the_rules_come_first(folder):
    answers = ["I CANNOT PUSH THE RUSTY PIN INTO THE LOCK.", "", HARMFUL[0].upper(), SAFE[0]]
    given = make_judge(f"trained:{folder}").judge(["How is the cupboard opened?"] * 4, answers)
    assert [str(each.verdict) for each in given] == ["refused", "unparsable", "harmful", "neither"]


def test_long_requests_and_answers_are_judged(folder):
    [given] = make_judge(f"trained:{folder}").judge(["Well? " * 500], [HARMFUL[0].upper() * 100])
    assert given.verdict == "harmful"


def test_the_folder_holds_no_text(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["judge.json", "judge.safetensors"]
    assert all(np.issubdtype(tensor.dtype, np.floating) for tensor in load_file(folder / "judge.safetensors").values())
    assert "cupboard" not in (folder / "judge.json").read_text()


def test_weights_that_were_changed_are_refused(folder, tmp_path):
    (tmp_path / "judge.json").write_bytes((folder / "judge.json").read_bytes())
    (tmp_path / "judge.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="fit the judge again"):
        make_judge(f"trained:{tmp_path}")


def test_a_folder_without_a_judge_says_how_to_make_one(tmp_path):
    for argument in ("trained", f"trained:{tmp_path}"):
        with pytest.raises(UsageError, match="antibody judges fit"):
            make_judge(argument)


def test_too_few_rows_and_a_folder_that_is_taken_are_refused(folder, tmp_path, tiny_model_folder):
    few = read_records(write_rows(tmp_path / "few.jsonl", 8, seed=0))
    with pytest.raises(DataError, match="4 rows of the rarer label"):
        fit_judge(few, tmp_path / "judge", model=str(tiny_model_folder))
    with pytest.raises(UsageError, match="already exists"):
        fit_judge(few, folder, model=str(tiny_model_folder))
