"""What the server and the answering process tell each other: one JSON object a line."""

import json
from typing import Any, Literal, NamedTuple


class Question(NamedTuple):
    """A chat to be continued.

    Attributes:
        id: Of the answer; `cancel` names it again.
        project: Whose turn it takes.
        run: The model: a run, or a model's name.
        messages: Roles and texts.
        max_tokens: Longest answer.
        temperature: 0 is greedy.
        top_p: Share of the probability that is drawn from.
        seed: Of the draw; None draws one.
        stop: Texts before which the answer ends.
    """

    id: str
    project: str
    run: str
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: list[str]


class Reply(NamedTuple):
    """A part of an answer, or its end.

    Attributes:
        id: Of the answer.
        text: What it goes on with.
        finish_reason: In the last one.
        prompt_tokens: Likewise.
        completion_tokens: Likewise.
        error: Why there is no answer.
        error_code: The wire's.
    """

    id: str
    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    error_code: str | None = None


def to_line(content: Question | Reply | dict[str, Any]) -> str:
    return json.dumps(content if isinstance(content, dict) else content._asdict()) + "\n"


def read_question(content: dict[str, Any]) -> Question:
    return Question(**content)


def read_reply(line: str | bytes) -> Reply:
    return Reply(**json.loads(line))
