"""The names a user may give are those of what there is."""

from typing import get_args

from antibody.models.base import DTYPES
from antibody.names import Dtype, Rule, Score
from antibody.objectives.alignment import RULES
from antibody.objectives.weights import SCORES


def test_every_name_is_known_and_every_known_one_can_be_named() -> None:
    assert get_args(Dtype) == ("auto", *DTYPES)
    assert get_args(Rule) == tuple(RULES)
    assert get_args(Score) == tuple(SCORES)
