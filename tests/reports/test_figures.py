import math

import pytest

from antibody.reports.figures import score_figure, tradeoff_figure, training_figure, weight_share_figure


def test_nothing_to_draw_is_no_figure() -> None:
    assert tradeoff_figure([]) is None
    assert weight_share_figure([{"step": 1, "loss": 2.0, "weight_share_harmful": None}]) is None
    assert score_figure([{"harmful": None, "score_first": 1.0}, {"harmful": True, "score_first": math.nan}]) is None
    assert training_figure([{"step": 1}]) is None


def test_a_missing_share_is_a_gap_and_not_zero() -> None:
    rows = [{"step": step, "weight_share_harmful": share} for step, share in enumerate([0.5, math.nan, 0.25])]
    figure = weight_share_figure(rows)
    assert figure is not None
    assert list(figure.data[1].y) == [50.0, None, 25.0]


@pytest.mark.parametrize("scores", [[-1.0, 0.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
def test_every_row_is_in_one_bin(scores: list[float]) -> None:
    audit = [{"harmful": index == 0, "score_first": score} for index, score in enumerate(scores)]
    figure = score_figure(audit)
    assert figure is not None
    assert [sum(bars.y) for bars in figure.data] == pytest.approx([100.0, 100.0])
    assert [bars.name for bars in figure.data] == ["benign rows (3)", "harmful rows (1)"]
