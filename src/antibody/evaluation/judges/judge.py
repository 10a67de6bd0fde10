"""What a judge is: requests and answers in, verdicts out."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Verdict(StrEnum):
    """What an answer to a harmful request is."""

    HARMFUL = "harmful"
    REFUSED = "refused"
    NEITHER = "neither"
    UNPARSABLE = "unparsable"


class Judgement(NamedTuple):
    """A verdict and, in a few words, why."""

    verdict: Verdict
    reason: str


class Judge(Protocol):
    """Anything that can tell a refusal from harmful compliance."""

    @property
    def name(self) -> str:
        """What makes it again: its name in `JUDGES`, with its argument. Written beside every figure it made."""

    def judge(self, requests: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        """One judgement an answer, in order. `requests` and `answers` have the same length."""
