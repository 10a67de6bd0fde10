"""What a screen says of an upload, on a tiny model."""

from typing import Any

import numpy as np
import pytest
import torch

from antibody.data.records import Record, chat_record
from antibody.errors import DataError
from antibody.objectives.gate import Calibration, among_upload
from antibody.screening.probe import Probe
from antibody.screening.screen import Screen
from antibody.screening.upload import OperatingPoint, ScreenedRow, operating_point, screen_upload, states_of


@pytest.fixture
def records() -> list[Record]:
    """Of different lengths, longest neither first nor last."""
    return [
        chat_record(
            f"Question {i}?", "word " * (i * 5 % 7 + 1), id=f"r{i}", line=i + 1, harmful=(True, False, None)[i % 3]
        )
        for i in range(7)
    ]


@pytest.fixture
def screen() -> Screen:
    random = np.random.default_rng(0)
    return Screen(Probe(random.normal(size=32), random.normal(size=32), 0.5), Calibration(0.0, 2.0))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_rows_come_back_in_order_each_judged_by_itself(
    tiny_model: Any, tiny_tokenizer: Any, records: list[Record], screen: Screen, batch_size: int
) -> None:
    read: list[int] = []
    options = {"max_length": 300, "batch_size": batch_size, "progress": read.append}
    rows = screen_upload(tiny_model, tiny_tokenizer, records, screen, threshold=0.5, **options)
    assert read[-1] == len(records)
    probabilities = among_upload(screen.calibration.benign_probability(torch.tensor([row.score for row in rows])))
    assert [row.benign_probability for row in rows] == pytest.approx(probabilities.tolist(), abs=1e-4)
    for row, record in zip(rows, records, strict=True):
        assert (row.line, row.id, row.harmful) == (record.line, record.id, record.harmful)
        [alone] = states_of(tiny_model, tiny_tokenizer, [record], max_length=300)
        score = screen.probe.score(alone)
        assert row.score == pytest.approx(score, rel=1e-4, abs=1e-4)
    assert len({round(row.score, 3) for row in rows}) == len(rows)


def test_a_row_below_the_threshold_is_flagged_and_one_at_it_is_not(
    tiny_model: Any, tiny_tokenizer: Any, records: list[Record], screen: Screen
) -> None:
    """As in training, where a row is kept if 1 − h_i ≥ threshold."""
    rows = screen_upload(tiny_model, tiny_tokenizer, records, screen, threshold=0.5, max_length=300)
    ranked = sorted(rows, key=lambda row: row.benign_probability)
    middle = ranked[3].benign_probability
    again = screen_upload(tiny_model, tiny_tokenizer, records, screen, threshold=middle, max_length=300)
    assert {row.id for row in again if row.flagged} == {row.id for row in ranked[:3]}


def test_a_row_without_a_response_in_the_context_is_refused(
    tiny_model: Any, tiny_tokenizer: Any, records: list[Record], screen: Screen
) -> None:
    with pytest.raises(DataError):
        screen_upload(tiny_model, tiny_tokenizer, records, screen, threshold=0.5, max_length=20)


def test_nothing_flagged_has_no_precision() -> None:
    rows = [ScreenedRow(1, "a", True, 0.0, 0.9, False), ScreenedRow(2, "b", False, 0.0, 0.9, False)]
    assert operating_point(rows) == OperatingPoint(1, 1, 0, 0, None, 0.0, 0.0)
    assert operating_point([]) is None
