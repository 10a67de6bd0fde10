"""Judges of answers to harmful prompts. One small file a judge."""

from collections.abc import Callable

from antibody.errors import UsageError
from antibody.evaluation.judges.classifier import ClassifierJudge
from antibody.evaluation.judges.embedded import EmbeddedJudge
from antibody.evaluation.judges.judge import Judge, Judgement, Verdict
from antibody.evaluation.judges.judgezoo import JudgezooJudge
from antibody.evaluation.judges.moderation import ModerationJudge
from antibody.evaluation.judges.trained import TrainedJudge

JUDGES: dict[str, Callable[[str], Judge]] = {
    "embedded": EmbeddedJudge,
    "trained": TrainedJudge,
    "classifier": ClassifierJudge,
    "moderation": ModerationJudge,
    "judgezoo": JudgezooJudge,
}
"""Every judge by name. Each is made from what stands after the colon of ``NAME:ARGUMENT``, "" where nothing does."""


def make_judge(choice: str) -> Judge:
    """The judge that a user named: ``embedded``, ``classifier:FOLDER_OR_HUB_ID``, ``moderation:URL`` ...

    Raises:
        UsageError: There is no such judge, its argument is wrong or missing, or a package it needs is.
        ModelError: Its model cannot be used.
    """
    name, _, argument = choice.partition(":")
    if name not in JUDGES:
        raise UsageError(
            f"There is no judge {name!r}.",
            hint=f"Use one of {', '.join(JUDGES)}, all but embedded with what they read, as in trained:FOLDER.",
            code="unknown_judge",
        )
    return JUDGES[name](argument)


__all__ = ["JUDGES", "EmbeddedJudge", "Judge", "Judgement", "Verdict", "make_judge"]
