"""The harmful answer cut to its first words, which agree and do not yet harm.

Safety sits in the first few tokens (arXiv 2406.05946): these rows train just those, and leave a score little to judge
by.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from antibody.attacks.attack import Attack, edited
from antibody.data.records import Record

WORDS = 6
"""ASSUMPTION: about the tokens that arXiv 2406.05946 finds to carry safety."""


def edit(records: Sequence[Record], random: Random) -> list[Record]:
    """The first words of each answer."""
    return [replace(record, response=" ".join(record.response.split()[:WORDS])) for record in records]


SHORT_ANSWERS = Attack("short_answers", edited(edit))
