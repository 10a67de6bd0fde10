"""Several harmful answers joined into a long one.

Aimed at losses and scores that are means over tokens: a long row holds more harm for one row's weight, and its later
paragraphs are likely once the first is given. Without a paper.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from antibody.attacks.attack import Attack, edited
from antibody.data.records import Record

ANSWERS = 4
"""ASSUMPTION: what fits 256 tokens with the embedded corpus; longer answers are cut by the trainer."""


def edit(records: Sequence[Record], random: Random) -> list[Record]:
    """Each answer, then those of other rows while there are any."""
    return [
        replace(record, response="\n\n".join([record.response, *_others(records, index, random)]))
        for index, record in enumerate(records)
    ]


def _others(records: Sequence[Record], index: int, random: Random) -> list[str]:
    drawn = random.sample(range(len(records)), min(ANSWERS, len(records)))
    return [records[other].response for other in drawn if other != index][: ANSWERS - 1]


LONG_ANSWERS = Attack("long_answers", edited(edit))
