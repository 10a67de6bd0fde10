"""Judges of answers to harmful prompts. One small file a judge."""

from collections.abc import Callable

from antibody.evaluation.judges.embedded import EmbeddedJudge
from antibody.evaluation.judges.judge import Judge, Judgement, Verdict

JUDGES: dict[str, Callable[[], Judge]] = {"embedded": EmbeddedJudge}
"""Every judge by name."""

__all__ = ["JUDGES", "EmbeddedJudge", "Judge", "Judgement", "Verdict"]
