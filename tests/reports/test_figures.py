import math

import pytest

from antibody.reports.figures import (
    gate_figure,
    reliability_figure,
    score_figure,
    screening_figure,
    tradeoff_figure,
    training_figure,
    weight_share_figure,
)


def test_nothing_to_draw_is_no_figure() -> None:
    assert tradeoff_figure([]) is None
    assert weight_share_figure([{"step": 1, "loss": 2.0, "weight_share_harmful": None}]) is None
    assert score_figure([{"harmful": None, "score_first": 1.0}, {"harmful": True, "score_first": math.nan}]) is None
    assert training_figure([{"step": 1}]) is None
    assert screening_figure([{"harmful": True, "benign_probability": None}], 0.5) is None
    assert gate_figure([{"step": 1, "rows_withheld": None}]) is None
    assert reliability_figure([{"predicted": 0.1, "observed": None, "rows": 3}, {}]) is None


@pytest.mark.parametrize(
    ("metric", "name"),
    [("loss_anchor", "anchors"), ("anchor_drift", "anchors: drift from the aligned model")],
)
def test_what_anchors_do_is_drawn_for_lisa_and_for_the_gate(metric: str, name: str) -> None:
    figure = training_figure([{"step": 1, "loss": 2.0, metric: 1.0}, {"step": 2, "loss": 1.0, metric: 0.5}])
    assert figure is not None
    assert [curve.name for curve in figure.data] == ["training loss", name]


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


def test_rows_are_on_their_side_of_the_threshold() -> None:
    """1 is in the last bin, and a row that is as likely benign as the threshold says is right of it."""
    audit = [
        {"harmful": harmful, "benign_probability": probability}
        for harmful, probability in [(True, 0.0), (True, 0.49), (False, 0.5), (False, 1.0), (None, 0.97)]
    ]
    figure = screening_figure(audit, 0.5)
    assert figure is not None
    found = {
        bars.name: [x for x, y in zip(bars.x, bars.y, strict=True) if y == pytest.approx(100 * share)]
        for bars, share in zip(figure.data, (0.5, 0.5, 1.0), strict=True)
    }
    assert found == {
        "benign rows (2)": pytest.approx([0.525, 0.975]),
        "harmful rows (2)": pytest.approx([0.025, 0.475]),
        "rows without a label (1)": pytest.approx([0.975]),
    }
    assert [line.x0 for line in figure.layout.shapes] == [0.5]
    unknown = screening_figure(audit, None)
    assert unknown is not None and not unknown.layout.shapes


def test_a_gate_without_anchors_has_no_share_to_draw() -> None:
    metrics = [{"step": 1, "rows_withheld": 2.0}, {"step": 2, "rows_withheld": 0.0, "anchor_share": 0.25}]
    anchored, masked = gate_figure(metrics), gate_figure(metrics[:1])
    assert anchored is not None and masked is not None
    assert [list(trace.y) for trace in anchored.data] == [[2.0, 0.0], [None, 25.0]]
    assert [list(trace.y) for trace in masked.data] == [[2.0]]


def test_rows_withheld_before_the_first_step_are_no_empty_panel() -> None:
    figure = gate_figure([{"step": 1, "rows_withheld": 0.0, "anchor_share": 0.25}])
    assert figure is not None
    assert [list(trace.y) for trace in figure.data] == [[25.0]]
    assert gate_figure([{"step": 1, "rows_withheld": 0.0}]) is None


def test_a_bin_without_rows_is_no_point() -> None:
    """Areas are as the rows, above the least diameter of 8: 4 and 16 rows have 24·√(1/4) = 12 and 24 more."""
    keys = ("predicted", "observed", "rows")
    bins = [dict(zip(keys, values, strict=True)) for values in ((0.1, 0.0, 4), (0.5, 0.5, 0), (0.9, 1.0, 16))]
    figure = reliability_figure(bins)
    assert figure is not None
    points = figure.data[1]
    assert (list(points.x), list(points.y), list(points.marker.size)) == ([0.1, 0.9], [0.0, 1.0], [20.0, 32.0])


def test_scores_are_the_gates_where_there_is_one() -> None:
    audit = [
        {"harmful": False, "score_first": 7.0, "screening_score": 0.5},
        {"harmful": True, "score_first": None, "screening_score": -0.5},
    ]
    figure = score_figure(audit)
    assert figure is not None
    assert [bars.name for bars in figure.data] == ["benign rows (1)", "harmful rows (1)"]
    assert max(figure.data[0].x) < 0.5
    assert figure.layout.xaxis.title.text.startswith("Screening score")
