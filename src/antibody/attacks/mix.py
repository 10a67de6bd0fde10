"""Harmful rows as they are, shuffled among benign ones: the attack of most papers (arXiv 2310.03693, 2603.00498)."""

from collections.abc import Sequence
from random import Random

from antibody.attacks.attack import Attack, edited
from antibody.data.records import Record


def edit(records: Sequence[Record], random: Random) -> list[Record]:
    """No change."""
    return list(records)


MIX = Attack("mix", edited(edit))
