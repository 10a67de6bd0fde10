import json

import pytest

from antibody.data.records import chat_record
from antibody.errors import DataError
from antibody.evaluation.tasks import TASKS, Grade, LabelsTask, Sst2Task


@pytest.mark.parametrize(
    ("answer", "predicted"),
    [
        ("positive", "positive"),
        ("Positive.", "positive"),
        ("  NEGATIVE\n\npositive", "negative"),
        ("**negative**", "negative"),
        ("Answer: positive", "positive"),
        ("The sentiment is negative, I think.", "negative"),
        ("The sentiment of this sentence is negative", None),
        ("positively", None),
        ("not positive", None),
        ("positive or negative", None),
        ("Positive/negative", None),
        ("", None),
        ("five stars", None),
    ],
)
def test_sst2_reads_the_label_at_the_start(answer, predicted):
    assert Sst2Task().grade(answer, "positive") == Grade(predicted == "positive", predicted)


def test_labels_are_those_of_the_records():
    records = [chat_record("?", label, id=str(at)) for at, label in enumerate(["Sci/Tech", "World", "World", "C++"])]
    task = LabelsTask().fitted(records)
    assert task.labels == ("Sci/Tech", "World", "C++")
    assert task.grade("sci/tech news", "Sci/Tech") == Grade(True, "Sci/Tech")
    assert task.grade("World, not Sci/Tech", "Sci/Tech") == Grade(False, "World")
    assert task.grade("c++ it is", "C++") == Grade(True, "C++")
    assert task.grade("Sports", "World") == Grade(False, None)


def test_the_longest_label_wins():
    task = LabelsTask(labels=("good", "good enough"))
    assert task.grade("Good enough", "good enough").correct
    assert not task.grade("Good enough", "good").correct


def test_an_empty_label_is_refused_with_its_line():
    record = chat_record("?", " ", id="row-7", line=7, source="upload.jsonl")
    with pytest.raises(DataError, match=r"upload\.jsonl, line 7"):
        LabelsTask().fitted([record])


def test_sst2_records(tmp_path):
    """The sentence with a raw line separator is one row."""
    path = tmp_path / "sst2.jsonl"
    path.write_text(
        '{"sentence": "a fine cake", "label": "positive"}\n\n{"sentence": "dull\u2028tea", "label": "negative"}\n'
    )
    first, second = Sst2Task().records(path)
    assert first.request == (
        "Classify the sentiment of this sentence as positive or negative. Answer with one word.\nSentence: a fine cake"
    )
    assert (first.response, first.id, first.line, first.source) == ("positive", "row-1", 1, path)
    assert (second.response, second.id, second.line) == ("negative", "row-3", 3)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{", None),
        ("[1]", None),
        ('{"label": "positive"}', "sentence"),
        ('{"sentence": " ", "label": "positive"}', "sentence"),
        ('{"sentence": "cake", "label": 1}', "label"),
        ('{"sentence": "cake", "label": ["positive"]}', "label"),
        ('{"sentence": "cake"}', "label"),
    ],
)
def test_sst2_refuses_bad_rows_by_line_and_field(tmp_path, row, field):
    path = tmp_path / "sst2.jsonl"
    path.write_text(json.dumps({"sentence": "cake", "label": "positive"}) + "\n" + row + "\n")
    with pytest.raises(DataError) as caught:
        Sst2Task().records(path)
    assert (caught.value.line, caught.value.field) == (2, field)


def test_sst2_refuses_files_without_rows(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Sst2Task().records(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        Sst2Task().records(tmp_path / "empty.jsonl")


def test_labels_reads_what_users_upload(tmp_path):
    path = tmp_path / "upload.jsonl"
    path.write_text('{"prompt": "Is tea warm?", "completion": "yes"}\n{"prompt": "Is ice warm?", "completion": "no"}\n')
    records = LabelsTask().records(path)
    assert [record.response.strip() for record in records] == ["yes", "no"]


def test_tasks_are_listed_under_their_names():
    assert all(task.name == name for name, task in TASKS.items())
    assert set(TASKS) == {"labels", "sst2"}
