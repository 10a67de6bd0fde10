"""The shapes of training rows that are accepted, and how each becomes `Record`s.

A format is a small parser that turns a row into a chat; what makes a chat valid, and which of its turns are trained
on, is decided once for all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

from antibody.data.records import Message, Record, Role
from antibody.errors import DataError, UsageError

ROLES: tuple[Role, ...] = get_args(Role)


class Place(NamedTuple):
    """Where a row comes from, so that every error can say so."""

    path: str | Path | None = None
    line: int | None = None

    def error(self, code: str, message: str, hint: str, *, field: str | None = None) -> DataError:
        return DataError(message, hint=hint, code=code, path=self.path, line=self.line, field=field)


class Turn(NamedTuple):
    """One validated turn and whether it may be trained on."""

    message: Message
    trained: bool


class Chat(NamedTuple):
    """A row as a chat.

    Attributes:
        turns: Every turn, in order.
        field: The field that holds the answers, for errors.
        start: Index of the first turn that may be an answer; earlier assistant turns are context.
    """

    turns: list[Turn]
    field: str
    start: int = 0


class Format(NamedTuple):
    """The fields that a row of this format must have, and its parser."""

    fields: tuple[str, ...]
    parse: Callable[[Mapping[str, object], Place], Chat]


def detect(row: object, *, path: str | Path | None = None, line: int | None = None) -> str:
    """Name the format of a row by its fields.

    Raises:
        DataError: ``not_an_object`` or, where no format or more than one fits, ``unknown_format``.
    """
    place = Place(path, line)
    row = _object(row, place)
    found = [name for name, format in FORMATS.items() if all(field in row for field in format.fields)]
    if len(found) == 1:
        return found[0]
    if found:
        raise place.error(
            "unknown_format",
            f"The row fits several formats: {', '.join(found)}.",
            "Name the one to read, or remove the other fields.",
        )
    accepted = "; ".join(f"{name} ({', '.join(format.fields)})" for name, format in FORMATS.items())
    raise place.error(
        "unknown_format",
        f"The row has the fields {_listed(row)}, which is no known format{_lacking(row)}.",
        f"Give every row the fields of one format: {accepted}.",
    )


def _lacking(row: Mapping[str, object]) -> str:
    """What would make it a row of the formats of which it has a field: ``: 'completion' or 'response' is missing``."""
    begun = [format.fields for format in FORMATS.values() if any(field in row for field in format.fields)]
    missing = dict.fromkeys(field for fields in begun for field in fields if field not in row)
    return f": {' or '.join(map(repr, missing))} is missing" if missing else ""


def parse(row: object, *, path: str | Path, line: int, format: str | None = None) -> list[Record]:
    """Turn a row into records: one for each assistant turn that may be trained on.

    Args:
        row: A decoded row.
        path: The row's file or Hub data set.
        line: 1-based line or row number.
        format: A name in `FORMATS`; by default the row's fields decide.

    Raises:
        DataError: The row must not be trained on; names the line and field.
        UsageError: ``unknown_format``, where `format` is not in `FORMATS`.
    """
    place = Place(path, line)
    row = _object(row, place)
    if format is None:
        format = detect(row, path=path, line=line)
    elif format not in FORMATS:
        raise UsageError(
            f"There is no data format {format!r}.", hint=f"Use one of: {', '.join(FORMATS)}.", code="unknown_format"
        )
    for field in FORMATS[format].fields:
        _required(row, field, place)
    chat = FORMATS[format].parse(row, place)
    answers = _answers(chat, place)
    id, harmful, category = _id(row, place), _harmful(row, place), _category(row, place)
    return [
        Record(
            prompt=tuple(turn.message for turn in chat.turns[:index]),
            response=chat.turns[index].message["content"],
            id=f"{id}#{number}" if len(answers) > 1 else id,
            line=line,
            source=path,
            harmful=harmful,
            category=category,
        )
        for number, index in enumerate(answers, start=1)
        if chat.turns[index].trained
    ]


def text(row: Mapping[str, object], key: str, place: Place, *, field: str = "", may_be_blank: bool = False) -> str:
    """Read a required string.

    Raises:
        DataError: ``missing_field``, ``not_a_string``, ``bad_utf8`` (a lone surrogate) or ``empty_content``.
    """
    field = field or key
    value = _required(row, key, place, field=field)
    if not isinstance(value, str):
        raise place.error(
            "not_a_string",
            f"Expected a string and found {_kind(value)}.",
            "Write the text as one JSON string.",
            field=field,
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise place.error(
            "bad_utf8",
            f"Character {error.start + 1} is half of a surrogate pair, which is no text.",
            "Write the character itself, or both halves of its escape.",
            field=field,
        ) from None
    if not may_be_blank and not value.strip():
        raise place.error("empty_content", "The text is blank.", "Fill it in or remove the row.", field=field)
    return value


def _messages(row: Mapping[str, object], place: Place) -> Chat:
    return Chat(_turns(row["messages"], place, "messages"), "messages")


def _alpaca(row: Mapping[str, object], place: Place) -> Chat:
    prompt = text(row, "instruction", place)
    extra = text(row, "input", place, may_be_blank=True) if row.get("input") is not None else ""
    if extra.strip():
        prompt = f"{prompt}\n\n{extra}"
    return _exchange(prompt, text(row, "output", place), "output")


def _prompt_completion(row: Mapping[str, object], place: Place) -> Chat:
    return _prompt_and(row, "completion", place)


def _prompt_response(row: Mapping[str, object], place: Place) -> Chat:
    return _prompt_and(row, "response", place)


def _prompt_and(row: Mapping[str, object], field: str, place: Place) -> Chat:
    if not (isinstance(row["prompt"], list) and isinstance(row[field], list)):
        return _exchange(text(row, "prompt", place), text(row, field, place), field)
    before = _turns(row["prompt"], place, "prompt")
    return Chat(before + _turns(row[field], place, field), field, start=len(before))


FORMATS: dict[str, Format] = {
    "messages": Format(("messages",), _messages),
    "prompt-completion": Format(("prompt", "completion"), _prompt_completion),
    "prompt-response": Format(("prompt", "response"), _prompt_response),
    "alpaca": Format(("instruction", "output"), _alpaca),
}


def _exchange(prompt: str, response: str, field: str) -> Chat:
    user, assistant = Message(role="user", content=prompt), Message(role="assistant", content=response)
    return Chat([Turn(user, trained=False), Turn(assistant, trained=True)], field)


def _turns(value: object, place: Place, field: str) -> list[Turn]:
    if not isinstance(value, list):
        raise place.error(
            "not_a_list",
            f"Expected a list of messages and found {_kind(value)}.",
            'Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].',
            field=field,
        )
    if not value:
        raise place.error(
            "empty_messages", "The list of messages is empty.", "Fill it in or remove the row.", field=field
        )
    return [_turn(turn, place, f"{field}[{index}]") for index, turn in enumerate(value)]


def _turn(value: object, place: Place, field: str) -> Turn:
    turn = _object(value, place, field=field)
    role = text(turn, "role", place, field=f"{field}.role", may_be_blank=True)
    if role not in ROLES:
        raise place.error(
            "unknown_role",
            f"There is no role {role[:40]!r}.",
            f"Use one of: {', '.join(ROLES)}.",
            field=f"{field}.role",
        )
    # A system prompt or a tool's result may be empty; what somebody asks or answers may not.
    content = text(turn, "content", place, field=f"{field}.content", may_be_blank=role not in ("user", "assistant"))
    weight = turn.get("weight")
    if weight is None:  # Also what Parquet writes for an absent field.
        weight = 1
    elif role != "assistant" or isinstance(weight, bool) or weight not in (0, 1):
        raise place.error(
            "bad_weight",
            f"The weight of {'an' if role == 'assistant' else 'a turn that is not an'} assistant turn cannot be "
            f"{_kind(weight)}{f' {str(weight)[:20]}' if isinstance(weight, int | float) else ''}.",
            "Give assistant turns the weight 0 or 1 and other turns none.",
            field=f"{field}.weight",
        )
    return Turn(Message(role=role, content=content), trained=role == "assistant" and weight == 1)


def _answers(chat: Chat, place: Place) -> list[int]:
    """The indices of the assistant turns that answer something, whether trained on or not."""
    roles = [turn.message["role"] for turn in chat.turns]
    answers = [index for index in range(chat.start, len(roles)) if roles[index] == "assistant"]

    if not answers:
        raise place.error(
            "no_assistant_turn", "No turn is the assistant's.", "Add the answer to train on.", field=chat.field
        )
    if roles[-1] != "assistant":
        raise place.error(
            "last_turn_not_assistant",
            f"The last turn is the {roles[-1]}'s.",
            "Remove it or answer it.",
            field=chat.field,
        )
    if "user" not in roles[: roles.index("assistant")]:
        raise place.error(
            "no_prompt", "The first assistant turn answers no user.", "Put a user turn before it.", field=chat.field
        )
    if not any(chat.turns[index].trained for index in answers):
        raise place.error(
            "no_assistant_turn",
            "Every assistant turn has weight 0.",
            "Give one the weight 1 or remove the row.",
            field=chat.field,
        )
    return answers


def _id(row: Mapping[str, object], place: Place) -> str:
    value = row.get("id")
    if value is None:
        return f"row-{place.line}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return text(row, "id", place)
    raise place.error(
        "bad_id",
        f"An id cannot be {_kind(value) if not isinstance(value, str) else 'blank'}.",
        "Use a string or an integer, or leave the field out.",
        field="id",
    )


def _harmful(row: Mapping[str, object], place: Place) -> bool | None:
    labels: list[bool] = []
    for field, harmful_when in (("harmful", True), ("is_safe", False)):
        value = row.get(field)
        if value is not None and not isinstance(value, bool):
            raise place.error("bad_label", f"A label cannot be {_kind(value)}.", "Write true or false.", field=field)
        if value is not None:
            labels.append(value is harmful_when)
    if len(set(labels)) > 1:
        raise place.error("bad_label", "`harmful` and `is_safe` contradict each other.", "Keep one.", field="is_safe")
    return labels[0] if labels else None


def _category(row: Mapping[str, object], place: Place) -> str | None:
    value = row.get("category")
    if isinstance(value, Mapping) and all(isinstance(flag, bool) for flag in value.values()):
        value = [name for name, flag in value.items() if flag]  # A flag for each category, as BeaverTails has it.
    values = value if isinstance(value, list) else [] if value is None else [value]
    names = [name for name in values if isinstance(name, str)]
    if len(names) < len(values):
        raise place.error(
            "bad_label",
            f"A category cannot be {_kind(value)} of this content.",
            "Use a string or a list of strings, or leave the field out.",
            field="category",
        )
    joined = ",".join(names)
    return text({"category": joined}, "category", place) if joined.strip() else None


def _object(value: object, place: Place, *, field: str | None = None) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise place.error(
            "not_an_object",
            f"Expected a JSON object and found {_kind(value)}.",
            'Write {"field": "value", ...}.',
            field=field,
        )
    return value


def _required(row: Mapping[str, object], key: str, place: Place, *, field: str | None = None) -> object:
    if key not in row:
        raise place.error(
            "missing_field", f"The field is missing; found {_listed(row)}.", f"Add `{key}`.", field=field or key
        )
    return row[key]


def _listed(names: Iterable[str]) -> str:
    # repr escapes what a terminal cannot print, and a hostile row may have a million fields.
    names = list(names)
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return (shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")) or "(none)"


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), f"a {type(value).__name__}")
