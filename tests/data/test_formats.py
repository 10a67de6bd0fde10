"""Which rows become which records, and which are refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antibody.data.formats import FORMATS, detect, parse
from antibody.data.records import Record
from antibody.errors import DataError, UsageError

USER = {"role": "user", "content": "Hello?"}
ANSWER = {"role": "assistant", "content": "Hi."}
CHAT = [USER, ANSWER]


def parsed(row: object, **options: Any) -> list[Record]:
    return parse(row, path="rows.jsonl", line=7, **options)


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": CHAT}, "messages"),
        ({"prompt": "Hello?", "completion": "Hi."}, "prompt-completion"),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt-completion"),
        ({"prompt": "Hello?", "response": "Hi."}, "prompt-response"),
        ({"instruction": "Hello?", "output": "Hi."}, "alpaca"),
        ({"instruction": "Hello?", "input": " ", "output": "Hi."}, "alpaca"),
        ({"instruction": "Hello?", "input": None, "output": "Hi."}, "alpaca"),
    ],
)
def test_every_format_gives_the_same_record(row: dict[str, object], format: str) -> None:
    expected = Record(prompt=(USER,), response="Hi.", id="row-7", line=7, source="rows.jsonl")  # type: ignore[arg-type]
    assert detect(row) == format
    assert parsed(row) == parsed(row, format=format) == [expected]


def test_alpaca_input_follows_the_instruction() -> None:
    [record] = parsed({"instruction": "Add.", "input": "1, 2", "output": "3"})
    assert record.request == "Add.\n\n1, 2"


def test_each_assistant_turn_is_a_record_with_all_that_precedes_it() -> None:
    system = {"role": "system", "content": ""}
    again = {"role": "assistant", "content": "Bye."}
    records = parsed({"id": 3, "messages": [system, *CHAT, USER, again]})
    assert [(each.id, each.prompt, each.response) for each in records] == [
        ("3#1", (system, USER), "Hi."),
        ("3#2", (system, USER, ANSWER, USER), "Bye."),
    ]


@pytest.mark.parametrize("zero", [0, 0.0])
def test_a_turn_of_weight_zero_is_context_and_never_a_response(zero: float) -> None:
    silent = {"role": "assistant", "content": "Do not learn this.", "weight": zero}
    [record] = parsed({"messages": [USER, silent, USER, {**ANSWER, "weight": 1}]})
    assert (record.id, record.response) == ("row-7#2", "Hi.")
    assert record.prompt[1] == {"role": "assistant", "content": "Do not learn this."}


def test_assistant_turns_of_a_conversational_prompt_are_context() -> None:
    [record] = parsed({"prompt": [*CHAT, USER], "completion": [{"role": "assistant", "content": "Bye."}]})
    assert (record.id, record.response, len(record.prompt)) == ("row-7", "Bye.", 3)


@pytest.mark.parametrize(
    ("labels", "harmful", "category"),
    [
        ({}, None, None),
        ({"harmful": True, "category": "fraud"}, True, "fraud"),
        ({"is_safe": True, "category": ["fraud", "theft"]}, False, "fraud,theft"),
        ({"is_safe": False, "harmful": True, "category": []}, True, None),
        ({"category": {"fraud": False, "theft": True}}, None, "theft"),
        ({"harmful": None, "is_safe": None, "category": None, "id": None, "source": object()}, None, None),
    ],
)
def test_labels(labels: dict[str, object], harmful: bool | None, category: str | None) -> None:
    [record] = parsed({"messages": CHAT, **labels})
    assert (record.harmful, record.category) == (harmful, category)


def chat(*turns: object) -> dict[str, object]:
    return {"messages": list(turns)}


REFUSED: list[tuple[str, str | None, object]] = [
    ("not_an_object", None, ["messages"]),
    ("not_an_object", None, None),
    ("not_an_object", "messages[0]", chat("user: Hello?")),
    ("unknown_format", None, {}),
    ("unknown_format", None, {"question": "Hello?", "answer": "Hi."}),
    ("unknown_format", None, {"prompt": "Hello?", "completion": "Hi.", "response": "Ho."}),
    ("missing_field", "messages[0].role", chat({"content": "Hello?"})),
    ("missing_field", "messages[1].content", chat(USER, {"role": "assistant"})),
    ("not_a_list", "messages", {"messages": "Hello?"}),
    ("not_a_string", "messages[1].content", chat(USER, {"role": "assistant", "content": None})),
    ("not_a_string", "messages[0].content", chat({"role": "user", "content": [{"type": "text", "text": "Hi"}]})),
    ("not_a_string", "messages[0].role", chat({"role": 1, "content": "Hello?"})),
    ("not_a_string", "completion", {"prompt": "Hello?", "completion": None}),
    ("not_a_string", "prompt", {"prompt": [USER], "completion": "Hi."}),
    ("not_a_string", "input", {"instruction": "Hello?", "input": 3, "output": "Hi."}),
    ("bad_utf8", "response", {"prompt": "Hello?", "response": "\ud800"}),
    ("bad_utf8", "id", {"messages": CHAT, "id": "\ud800"}),
    ("bad_utf8", "category", {"messages": CHAT, "category": "\ud800"}),
    ("empty_content", "prompt", {"prompt": " \n", "response": "Hi."}),
    ("empty_content", "output", {"instruction": "Hello?", "output": ""}),
    ("empty_content", "messages[1].content", chat(USER, {"role": "assistant", "content": "\t"})),
    ("unknown_role", "messages[0].role", chat({"role": "human", "content": "Hello?"}, ANSWER)),
    ("empty_messages", "messages", chat()),
    ("empty_messages", "prompt", {"prompt": [], "completion": [ANSWER]}),
    ("no_assistant_turn", "messages", chat(USER)),
    ("no_assistant_turn", "completion", {"prompt": CHAT, "completion": [USER]}),
    ("no_assistant_turn", "messages", chat(USER, {**ANSWER, "weight": 0})),
    ("last_turn_not_assistant", "messages", chat(USER, ANSWER, USER)),
    ("no_prompt", "messages", chat(ANSWER)),
    ("no_prompt", "messages", chat({"role": "system", "content": "Be kind."}, ANSWER, USER, ANSWER)),
    ("bad_weight", "messages[1].weight", chat(USER, {**ANSWER, "weight": 0.5})),
    ("bad_weight", "messages[1].weight", chat(USER, {**ANSWER, "weight": "0"})),
    ("bad_weight", "messages[1].weight", chat(USER, {**ANSWER, "weight": False})),
    ("bad_weight", "messages[1].weight", chat(USER, {**ANSWER, "weight": float("nan")})),
    ("bad_weight", "messages[0].weight", chat({**USER, "weight": 1}, ANSWER)),
    ("bad_label", "harmful", {"messages": CHAT, "harmful": "False"}),
    ("bad_label", "harmful", {"messages": CHAT, "harmful": 0}),
    ("bad_label", "is_safe", {"messages": CHAT, "is_safe": "no"}),
    ("bad_label", "is_safe", {"messages": CHAT, "is_safe": True, "harmful": True}),
    ("bad_label", "category", {"messages": CHAT, "category": 3}),
    ("bad_label", "category", {"messages": CHAT, "category": ["fraud", None]}),
    ("bad_id", "id", {"messages": CHAT, "id": True}),
    ("bad_id", "id", {"messages": CHAT, "id": " "}),
    ("bad_id", "id", {"messages": CHAT, "id": 1.5}),
]


@pytest.mark.parametrize(("code", "field", "row"), REFUSED)
def test_a_bad_row_is_refused_by_code_line_and_field(code: str, field: str | None, row: object) -> None:
    with pytest.raises(DataError) as caught:
        parsed(row)
    error = caught.value
    assert (error.code, error.path, error.line, error.field) == (code, "rows.jsonl", 7, field)
    assert error.hint
    str(error).encode()


def test_a_named_format_says_which_field_is_missing() -> None:
    with pytest.raises(DataError, match="field `output`") as caught:
        parsed({"instruction": "Hello?"}, format="alpaca")
    assert caught.value.code == "missing_field"


def test_an_unknown_format_lists_what_was_seen_and_what_is_accepted() -> None:
    with pytest.raises(DataError) as caught:
        detect({"question": 1, "\ud800": 2})
    for part in ("'question'", "'\\ud800'", *FORMATS, "instruction, output"):
        assert part in str(caught.value)


def test_a_row_without_its_answer_is_told_what_it_lacks() -> None:
    for row, lacking in (
        ({"prompt": "Hello?"}, ": 'completion' or 'response' is missing."),
        ({"instruction": "Hello?"}, ": 'output' is missing."),
        ({"completion": "Hi.", "response": "Hi."}, ": 'prompt' is missing."),
        ({"question": "Hello?"}, "no known format."),
        ({}, "no known format."),
    ):
        with pytest.raises(DataError) as caught:
            detect(row)
        assert lacking in str(caught.value)


def test_an_unknown_format_name_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="alpaca"):
        parsed({"messages": CHAT}, format="sharegpt")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | anything, "content": st.text() | anything},
    optional={"weight": st.sampled_from([0, 1]) | anything},
)
rows = anything | st.dictionaries(
    st.sampled_from(
        [
            *sorted({field for format in FORMATS.values() for field in format.fields}),
            "id",
            "harmful",
            "is_safe",
            "category",
        ]
    ),
    anything | st.lists(turns | anything, max_size=4),
)


@given(row=rows)
def test_any_row_gives_records_or_a_data_error_with_its_line(row: object) -> None:
    try:
        records = parsed(row)
    except DataError as error:
        assert error.line == 7
        json.dumps(error.to_json(), ensure_ascii=False).encode()
    else:
        assert records
        assert all(record.response.strip() and record.request for record in records)


@given(roles_and_weights=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from([0, 1, None]))))
def test_the_responses_are_exactly_the_assistant_turns_without_weight_zero(
    roles_and_weights: list[tuple[str, int | None]],
) -> None:
    messages: list[dict[str, Any]] = [USER]
    for index, (role, weight) in enumerate([*roles_and_weights, ("assistant", 1)]):
        messages.append({"role": role, "content": f"turn {index}", "weight": weight if role == "assistant" else None})
    expected = [turn["content"] for turn in messages if turn["role"] == "assistant" and turn["weight"] != 0]
    assert [record.response for record in parsed({"messages": messages})] == expected
