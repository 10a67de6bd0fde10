"""Judges of two answers to one instruction: which is better. One class a judge, one line in `PAIRWISE_JUDGES`."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Protocol

from antibody.errors import ModelError, UsageError
from antibody.evaluation.endpoint import CALLS, RETRIES, TIMEOUT_SECONDS, Endpoint, NoAnswerError

KEY_VARIABLE = "ANTIBODY_JUDGE_KEY"

# ASSUMPTION: wording of our own, after the idea of AlpacaEval's (Li et al. 2023); figures are not those of its leader
# board.
SYSTEM = (
    "You compare two answers to an instruction. The better one does what was asked more correctly, completely and "
    "clearly. Length alone is no merit. Reply with one word: A, B or tie."
)
QUESTION = "Instruction:\n{request}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich is better: A, B or tie?"


class Preference(StrEnum):
    """Which of two answers is better."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    UNPARSABLE = "unparsable"


class PairwiseJudge(Protocol):
    """Anything that can tell the better of two answers."""

    @property
    def name(self) -> str:
        """What makes it again: its name in `PAIRWISE_JUDGES`, with its argument."""

    def prefer(self, requests: Sequence[str], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        """One preference a request, in order. All three have the same length."""


class ChatPairwiseJudge:
    """Asks a model behind an OpenAI-compatible ``POST /v1/chat/completions``, at temperature 0.

    A call that failed, and a reply that is not one of the three words alone, is unparsable.

    Args:
        address: The service's URL; ``#MODEL`` names the model.
        timeout: Seconds until a call counts as lost.
        retries: Calls after the first one.

    Raises:
        UsageError: The address is no URL or names no model, or the package `openai` is missing.
    """

    def __init__(self, address: str, *, timeout: float = TIMEOUT_SECONDS, retries: int = RETRIES) -> None:
        self._service = Endpoint(
            "chat", address, path="chat/completions", key_variable=KEY_VARIABLE, timeout=timeout, retries=retries
        )
        self.name = self._service.name
        if self._service.model is None:
            raise UsageError(
                "The judge `chat` needs the name of a model.", hint="Use chat:https://HOST#MODEL.", code="no_model"
            )

    def prefer(self, requests: Sequence[str], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        """One preference a request, in order.

        Raises:
            UsageError: The service refuses the key, or has no chat completions or not this model.
            ModelError: It gave no preference at all.
        """
        triples = list(zip(requests, firsts, seconds, strict=True))
        with ThreadPoolExecutor(CALLS) as pool:
            preferences = list(pool.map(lambda triple: self._preferred(*triple), triples))
        if preferences and all(given == Preference.UNPARSABLE for given in preferences):
            raise ModelError(
                f"{self.name} gave no preference on any of {len(preferences)} pairs of answers.",
                hint="Check the address, and that the model replies with A, B or tie.",
                code="judge_unavailable",
            )
        return preferences

    def _preferred(self, request: str, first: str, second: str) -> Preference:
        asked = QUESTION.format(request=request, first=first, second=second)
        try:
            body = self._service.body(
                self._service.client.chat.completions.with_raw_response.create,
                messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}],
                temperature=0,
            )
        except NoAnswerError:
            return Preference.UNPARSABLE
        try:
            reply = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            reply = None
        return read_preference(reply) if isinstance(reply, str) else Preference.UNPARSABLE


def read_preference(reply: str) -> Preference:
    """``A``, ``B`` or ``tie``, case and signs around it aside; anything more is unparsable."""
    words = re.findall(r"\w+", reply.lower())
    named = {("a",): Preference.FIRST, ("b",): Preference.SECOND, ("tie",): Preference.TIE}
    return named.get(tuple(words), Preference.UNPARSABLE)


PAIRWISE_JUDGES: dict[str, Callable[[str], PairwiseJudge]] = {"chat": ChatPairwiseJudge}
"""Every judge of pairs by name. Each is made from what stands after the colon of ``NAME:ARGUMENT``."""


def make_pairwise_judge(choice: str) -> PairwiseJudge:
    """The judge that a user named, such as ``chat:URL#MODEL``.

    Raises:
        UsageError: There is no such judge, its argument is wrong or missing, or a package it needs is.
    """
    name, _, argument = choice.partition(":")
    if name not in PAIRWISE_JUDGES:
        raise UsageError(
            f"There is no judge {name!r} of pairs of answers.",
            hint=f"Use one of {', '.join(PAIRWISE_JUDGES)}, as in win_rate:chat:https://HOST#MODEL.",
            code="unknown_judge",
        )
    return PAIRWISE_JUDGES[name](argument)
