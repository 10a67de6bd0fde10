"""A `Record`: one prompt and one response, and where it came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

Role = Literal["system", "user", "assistant", "tool", "developer"]


class Message(TypedDict):
    """One turn of a chat, in the wire form that chat templates read."""

    role: Role
    content: str


@dataclass(frozen=True)
class Record:
    """One prompt with the response a model is trained on or scored on.

    A chat with several assistant turns becomes several records, one for each turn, so that every turn is trained on,
    scored and weighed by itself.

    Attributes:
        prompt: The turns before the response; a plain string where no chat template is to be applied.
        response: The text of the assistant's turn.
        id: Unique within a data set.
        line: 1-based line (JSONL) or row (Parquet, Hub) of the source.
        source: The file or Hub data set it was read from.
        harmful: A label for audits and measurements, ``None`` where unknown. Training never reads it.
        category: A free label of the source, kept for reports.
    """

    prompt: tuple[Message, ...] | str
    response: str
    id: str
    line: int
    source: str | Path = ""
    harmful: bool | None = None
    category: str | None = None

    @property
    def request(self) -> str:
        """The last user turn, or the plain prompt."""
        if isinstance(self.prompt, str):
            return self.prompt
        return next((turn["content"] for turn in reversed(self.prompt) if turn["role"] == "user"), "")


def chat_record(prompt: str, response: str, *, id: str, line: int = 0, **labels: object) -> Record:
    """A single-turn chat: one user message and one answer."""
    return Record(prompt=({"role": "user", "content": prompt},), response=response, id=id, line=line, **labels)  # type: ignore[arg-type]
