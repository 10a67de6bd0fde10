"""Task `win_rate:JUDGE`: how often a model's answers are preferred to the rows' own (after AlpacaEval, Li et al. 2023).

    win rate  =  mean over rows of  ½ (J(model, reference) + 1 − J(reference, model)),    J = 1, ½ or 0

J is 1 where the judge prefers the answer that stands first, and ½ at a tie. Every pair is judged in both orders,
because judges favour a place. A row of which either order has no readable preference is in no win rate; it is counted
as unparsable. Nothing corrects for length, as AlpacaEval 2 does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from antibody.data.records import Record
from antibody.data.sources import load_records
from antibody.evaluation.pairwise import PairwiseJudge, Preference, make_pairwise_judge
from antibody.evaluation.tasks.task import Grade

_FIRST_WINS = {Preference.FIRST: 1.0, Preference.TIE: 0.5, Preference.SECOND: 0.0, Preference.UNPARSABLE: math.nan}


@dataclass(frozen=True)
class WinRateTask:
    """Grades by a judge that sees both answers.

    Attributes:
        judge: Prefers one of two answers.
        name: Name in `JUDGED_TASKS`.
        max_new_tokens: ASSUMPTION: 256 tokens hold an answer of a few paragraphs; AlpacaEval allows 2048.
    """

    judge: PairwiseJudge
    name: str = "win_rate"
    max_new_tokens: int = 256

    def records(self, source: str | Path) -> list[Record]:
        """Instructions with the answers to compare to, of any source and in any format that uploads come in."""
        return list(load_records(str(source)).records)

    def graded(self, records: Sequence[Record], answers: Sequence[str]) -> list[Grade]:
        """One grade a record, in order: 1 where the model's answer wins, 0 where it loses, NaN without a judgement.

        Raises:
            UsageError, ModelError: The judge cannot be used.
        """
        requests = [record.request for record in records]
        references = [record.response for record in records]
        shown = self.judge.prefer(requests, answers, references)
        turned = self.judge.prefer(requests, references, answers)
        return [_grade(first, second) for first, second in zip(shown, turned, strict=True)]


def win_rate(judge: str) -> WinRateTask:
    """The task by a judge's name, such as ``chat:URL#MODEL``.

    Raises:
        UsageError: As `make_pairwise_judge`.
    """
    return WinRateTask(make_pairwise_judge(judge))


def _grade(shown: Preference, turned: Preference) -> Grade:
    score = (_FIRST_WINS[shown] + 1 - _FIRST_WINS[turned]) / 2
    if math.isnan(score):
        return Grade(score, None)
    return Grade(score, "win" if score > 0.5 else "loss" if score < 0.5 else "tie")
