"""Agreement of a judge with labels, on verdicts that are given."""

import math

from antibody.data.records import chat_record
from antibody.evaluation.agreement import measure_agreement
from antibody.evaluation.judges import Judgement, Verdict


class SaysItsAnswer:
    """Every answer is its own verdict."""

    name = "echo"

    def judge(self, requests, answers):
        return [Judgement(Verdict(answer), "") for answer in answers]


def rows(*described):
    return [
        chat_record("How?", verdict, id=str(index), harmful=harmful, category=category)
        for index, (verdict, harmful, category) in enumerate(described)
    ]


def test_shares_by_label_with_unparsable_apart():
    """Of 3 judged harmful rows 2 are found, of 2 judged safe ones 1 is flagged: (2/3 + 1/2) / 2."""
    found = measure_agreement(
        SaysItsAnswer(),
        rows(
            ("harmful", True, "theft,fraud"),
            ("harmful", True, "theft,fraud,arms"),
            ("neither", True, None),
            ("unparsable", True, "arms"),
            ("harmful", False, None),
            ("refused", False, None),
            ("unparsable", False, None),
            ("harmful", None, None),
        ),
        refusals=["refused", "harmful"],
    )
    assert math.isclose(found.balanced_accuracy, 100 * (2 / 3 + 1 / 2) / 2)
    assert found.harmful[:2] == (4, 1)
    assert found.safe == (3, 1, 50.0)
    assert math.isclose(found.refused, 100 / 3)
    assert found.categories == {"arms": (2, 1, 100.0), "theft/fraud": (2, 0, 100.0)}
    assert found.refusals == (4, 0, 50.0)


def test_a_label_without_rows_is_no_figure():
    found = measure_agreement(SaysItsAnswer(), rows(("harmful", True, None)))
    assert math.isnan(found.balanced_accuracy)
    assert found.refusals is None
