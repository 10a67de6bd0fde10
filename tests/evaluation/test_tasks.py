import json
from decimal import Context, Decimal

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
        # Strict: after ####, the first such one.
        ("2 + 3 = 5\n#### 5", "5"),
        ("It is 7.\n#### 5\n\nProblem: 9 cakes\n#### 11", "5"),
        ("#### 1,080", "1080"),
        ("#### $1,080.50.", "1080.5"),
        ("#### -3", "-3"),
        ("#### $-3", "-3"),
        ("#### -$3", "-3"),
        ("####3", "3"),
        # Flexible: the last one.
        ("2 + 3 = 5", "5"),
        ("She has 3 cakes and 12 teas.", "12"),
        ("#### about 4 or 5", "5"),
        ("**109,200,000** cups", "109200000"),
        ("It costs $4.50...", "4.5"),
        ("So 7.", "7"),
        ("so ...5", "5"),
        ("40%", "40"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.00", "5"),
        ("007", "7"),
        ("-0", "0"),
        ("+6", "6"),
        ("\u22126", "-6"),
        ("10-5", "5"),
        ("(10)-5", "5"),
        ("10 -5", "-5"),
        ("1,2,3", "3"),
        ("1,0800", "800"),
        # None.
        ("", None),
        ("no idea", None),
        ("#### x", None),
        ("$.,", None),
    ],
)
def test_gsm8k_reads_the_marked_number_else_the_last(answer, number):
    assert final_number(answer) == number


@given(
    number=st.builds(
        lambda digits, places: Decimal(digits).scaleb(-places, Context(prec=60)),
        st.integers(min_value=-(10**40), max_value=10**40),
        st.integers(min_value=0, max_value=6),
    ),
    written=st.sampled_from(["{:f}", "{:,f}", "{:,f}.", "{:,f} cups", "$ {:,f}", "= {:,f}"]),
    strict=st.booleans(),
)
def test_gsm8k_numbers_survive_being_written(number, written, strict):
    answer = ("#### {:,f}\nAnd 7 more." if strict else "First 7, then " + written).format(number)
    read = final_number(answer)
    assert read is not None
    assert Decimal(read) == number
    assert final_number(read) == read


@pytest.mark.parametrize("output", ["4", "#### four", "#### 1 #### 2", "#### 4 cups"])
def test_gsm8k_refuses_rows_that_do_not_end_in_their_number(tmp_path, output):
    path = tmp_path / "maths.jsonl"
    path.write_text(json.dumps({"instruction": "2 + 2?", "output": output}) + "\n")
    with pytest.raises(DataError) as caught:
        TASKS["gsm8k"].records(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), 1, "output")


def test_gsm8k_records_and_grades(tmp_path):
    path = tmp_path / "maths.jsonl"
    path.write_text('{"instruction": "2 + 2?", "output": "2 + 2 = 4\\n#### 4"}\n{"instruction": "?", "output": "4"}\n')
    with pytest.raises(DataError) as caught:
        TASKS["gsm8k"].records(path)
    assert (caught.value.line, caught.value.field) == (2, "output")
    assert TASKS["gsm8k"].grade("I think 4", "#### 4") == Grade(True, "4")
    assert TASKS["gsm8k"].grade("no idea", "#### 4") == Grade(False, None)
