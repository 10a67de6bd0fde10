"""Forms in which a prompt can demand its answer: how an answer is put says nothing of whether it is harmful."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from antibody.data.records import Message, Record


class Form(NamedTuple):
    """What is demanded, with ``{}`` for the request, and an answer in that form."""

    prompt: str
    answer: Callable[[str], str]


def in_form(record: Record, form: Form) -> Record:
    """The same request and answer in a form."""
    return replace(
        with_request(record, form.prompt.format(record.request)),
        response=form.answer(record.response),
    )


def with_request(record: Record, request: str) -> Record:
    """The same record with another text in its last user turn."""
    if isinstance(record.prompt, str):
        return replace(record, prompt=request)
    last = max(index for index, turn in enumerate(record.prompt) if turn["role"] == "user")
    turn = Message(role="user", content=request)
    return replace(record, prompt=(*record.prompt[:last], turn, *record.prompt[last + 1 :]))
