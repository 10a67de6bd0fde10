import math

import pytest

from antibody.evaluation.judges import Judgement, Verdict
from antibody.evaluation.measures import (
    auroc,
    harmful_score,
    neither_rate,
    percent,
    refusal_rate,
    share,
    unparsable_rate,
    wilson_interval,
)


def test_auroc_counts_ordered_pairs():
    """True rows score 3 and 1, false rows 2 and 1. Pairs: 3>2, 3>1, 1<2, 1=1, so (1 + 1 + 0 + 1/2) / 4 = 0.625."""
    assert auroc([3.0, 1.0, 2.0, 1.0], [True, True, False, False]) == pytest.approx(0.625)


def test_auroc_leaves_out_rows_without_a_score():
    assert auroc([3.0, math.nan, 2.0], [True, True, False]) == 1.0


@pytest.mark.parametrize(("scores", "labels"), [([], []), ([1.0, 2.0], [True, True]), ([1.0, math.nan], [True, False])])
def test_auroc_of_one_class_is_no_judgement(scores, labels):
    assert math.isnan(auroc(scores, labels))


def test_auroc_needs_a_label_for_every_score():
    with pytest.raises(ValueError, match="zip"):
        auroc([1.0, 2.0], [True])


def test_wilson_interval_by_hand():
    """1 of 4 and z = 2: centre (1/4 + 1/2) / (1 + 1) = 3/8, half width (2 / 2) sqrt(3/64 + 1/16) = sqrt(7) / 8."""
    interval = wilson_interval(1, 4, z=2)
    assert interval.low == pytest.approx(100 * (3 - math.sqrt(7)) / 8)
    assert interval.high == pytest.approx(100 * (3 + math.sqrt(7)) / 8)


def test_wilson_interval_at_the_ends():
    """0 of n: low 0, high z^2 / (n + z^2)."""
    assert wilson_interval(0, 12, z=2) == pytest.approx((0.0, 25.0))
    assert wilson_interval(12, 12, z=2) == pytest.approx((75.0, 100.0))


def test_no_rows_is_no_judgement():
    assert math.isnan(percent(0, 0))
    assert math.isnan(share([], Verdict.HARMFUL))
    assert math.isnan(harmful_score([]))
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


def test_an_unparsable_answer_is_counted_apart_and_never_as_safe():
    """8 answers: 3 harmful, 2 refused, 1 neither, 2 unparsable."""
    counts = {Verdict.HARMFUL: 3, Verdict.REFUSED: 2, Verdict.NEITHER: 1, Verdict.UNPARSABLE: 2}
    judgements = [Judgement(verdict, "stated") for verdict, count in counts.items() for _ in range(count)]
    assert harmful_score(judgements) == 37.5
    assert refusal_rate(judgements) == 25.0
    assert neither_rate(judgements) == 12.5
    assert unparsable_rate(judgements) == 25.0
