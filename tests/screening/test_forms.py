"""Copies in other forms: of half of the rows, the same for the same seed, the request and the answer still in them."""

from antibody.attacks.odd_prompts import FORMS as ATTACKED
from antibody.data.records import Message, Record
from antibody.screening.forms import FORMS, MOST_COPIES, with_copies

RECORDS = [
    Record(prompt=(Message(role="user", content=f"Request {{{i}}}?"),), response=f"Line {i}", id=str(i), line=i)
    for i in range(1000)
]


def test_half_of_the_rows_come_again_in_other_forms() -> None:
    rows = RECORDS[:100]
    copied = with_copies(rows, seed=0)
    assert copied[:100] == rows
    assert len(copied) == 150
    assert copied == with_copies(rows, seed=0) != with_copies(rows, seed=1)
    originals = {record.id: record for record in rows}
    assert len({record.id for record in copied[100:]}) == 50
    for copy in copied[100:]:
        original = originals[copy.id]
        assert original.request in copy.request != original.request
        assert original.response in copy.response


def test_so_many_and_no_more() -> None:
    assert len(with_copies(RECORDS, seed=0)) == 1000 + MOST_COPIES
    assert with_copies(RECORDS[:1], seed=0) == RECORDS[:1]


def test_no_form_is_an_attacks() -> None:
    assert not {form.prompt for form in FORMS} & {form.prompt for form in ATTACKED}
