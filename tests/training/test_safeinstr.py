"""Which safety rows are mixed in, how many and where."""

import pytest

from antibody.data.records import Record, chat_record
from antibody.errors import DataError
from antibody.training.provided import Provided
from antibody.training.safeinstr import with_safety_rows

UPLOAD = [chat_record(f"Question {i}?", "Answer.", id=f"u{i}") for i in range(97)]
ANCHORS = [
    *(chat_record(f"Harm {i}?", "I cannot help.", id=f"a{i}") for i in range(2)),
    *(chat_record(f"Sky {i}?", "It is blue.", id=f"b{i}") for i in range(20)),
]


def mixed(seed: int = 0, **options: float) -> list[Record]:
    return with_safety_rows(UPLOAD, Provided(ANCHORS, ["I cannot help."], seed), **options)


def test_the_published_share_and_the_users_order() -> None:
    """3 of 100 rows are refusals; the third is one of the two again, under another id."""
    rows = mixed()
    assert len(rows) == 100
    assert [row for row in rows if row in UPLOAD] == UPLOAD
    added = [row for row in rows if row not in UPLOAD]
    assert {row.response for row in added} == {"I cannot help."}
    assert len({row.id for row in rows}) == 100


def test_places_are_drawn_by_seed() -> None:
    assert mixed() == mixed()
    assert mixed() != mixed(seed=1)
    places = [index for index, row in enumerate(mixed(safety_ratio=0.5)) if row not in UPLOAD]
    assert len(places) == 97
    assert min(places) < 10 and max(places) > 183


def test_a_small_upload_gets_one_and_a_share_of_0_none() -> None:
    few = with_safety_rows(UPLOAD[:3], Provided(ANCHORS, ["I cannot help."], 0))
    assert len(few) == 4
    assert mixed(safety_ratio=0.0) == UPLOAD


def test_without_safety_rows_nothing_is_trained() -> None:
    with pytest.raises(DataError, match="No anchor is answered by one of the refusals"):
        with_safety_rows(UPLOAD, Provided(ANCHORS[2:], ["I cannot help."], 0))
