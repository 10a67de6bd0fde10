import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antibody.data.records import chat_record
from antibody.errors import DataError
from antibody.evaluation.tasks import TASKS, Grade, LabelsTask
from antibody.evaluation.tasks.gsm8k import final_number


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
    assert TASKS["sst2"].grade(answer, "positive") == Grade(predicted == "positive", predicted)


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
    first, second = TASKS["sst2"].records(path)
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
        TASKS["sst2"].records(path)
    assert (caught.value.line, caught.value.field) == (2, field)


def test_sst2_refuses_files_without_rows(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        TASKS["sst2"].records(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        TASKS["sst2"].records(tmp_path / "empty.jsonl")


def test_labels_reads_what_users_upload(tmp_path):
    path = tmp_path / "upload.jsonl"
    path.write_text('{"prompt": "Is tea warm?", "completion": "yes"}\n{"prompt": "Is ice warm?", "completion": "no"}\n')
    records = LabelsTask().records(path)
    assert [record.response.strip() for record in records] == ["yes", "no"]


def test_tasks_are_listed_under_their_names():
    assert all(task.name == name for name, task in TASKS.items())
    assert set(TASKS) == {"labels", "sst2", "ag_news", "gsm8k"}


def test_ag_news_asks_for_one_of_four_labels(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text('{"text": "The chips are faster.", "label": "Sci/Tech"}\n')
    [record] = TASKS["ag_news"].records(path)
    assert record.request.endswith("Answer with one label.\nNews: The chips are faster.")
    assert TASKS["ag_news"].grade("sci/tech.", record.response).correct
    assert not TASKS["ag_news"].grade("Business", record.response).correct


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7"),
        ("#### 7 but first it was 12", "7"),
        ("The total is $1,234.50.", "1234.5"),
        ("-3 degrees", "-3"),
        ("so 10.00 euros", "10"),
        ("5 apples and 6 pears make 11", "11"),
        ("100", "100"),
        ("none", None),
        ("", None),
    ],
)
def test_gsm8k_reads_the_marked_number_else_the_last(answer, number):
    assert final_number(answer) == number


@given(st.integers(-(10**12), 10**12))
def test_gsm8k_reads_every_whole_number(value):
    assert final_number(f"It is {value:,}.") == str(value)


def test_gsm8k_records_and_grades(tmp_path):
    path = tmp_path / "maths.jsonl"
    path.write_text('{"instruction": "2 + 2?", "output": "2 + 2 = 4\\n#### 4"}\n{"instruction": "?", "output": "4"}\n')
    with pytest.raises(DataError) as caught:
        TASKS["gsm8k"].records(path)
    assert (caught.value.line, caught.value.field) == (2, "output")
    assert TASKS["gsm8k"].grade("I think 4", "#### 4") == Grade(True, "4")
    assert TASKS["gsm8k"].grade("no idea", "#### 4") == Grade(False, None)
