"""Rows of three lengths from the embedded corpus, for both stages.

| rows | fine-tuning | alignment |
| --- | --- | --- |
| short | a label, as in SST-2 | short refusals and labels; harmful answers as they are |
| medium | about 60 tokens, as in Alpaca | refusals, helpful and harmful answers of about 60 tokens |
| long | about 200 tokens | the same of about 200 tokens |

Longer responses are joined from whole answers and cut, each between half and one and a half times as long as the mean,
because padding is part of what a step costs. Nothing here is meant to be learned from.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from random import Random
from typing import NamedTuple

from antibody.data import corpus
from antibody.data.mixes import align_records, mix
from antibody.data.records import Record
from antibody.errors import UsageError

# Words of an average response; SmolLM2's tokenizer makes 1.35 tokens of a word of the corpus. 0 is a label.
WORDS = {"short": 0, "medium": 45, "long": 150}
LABEL_KINDS = {"label", "yes_no", "number"}


class AlignmentRows(NamedTuple):
    """``D_align`` and ``D_harm``."""

    align: list[Record]
    harmful: list[Record]


def words_of(rows: str) -> int:
    """The mean response of a kind of rows: a key of `WORDS`, or ``words=N``.

    Raises:
        UsageError: There is no such kind.
    """
    if rows in WORDS:
        return WORDS[rows]
    name, _, number = rows.partition("=")
    if name != "words" or not number.isdigit():
        raise UsageError(
            f"There are no rows {rows!r}.", hint=f"Use one of {', '.join(WORDS)}, words=N.", code="unknown_name"
        )
    return int(number)


def finetuning_rows(rows: str, count: int, *, seed: int) -> list[Record]:
    """A user's upload of ``count`` rows."""
    words = words_of(rows)
    return _drawn(_benign(words) if words else corpus.task("train"), count, words, seed)


def alignment_rows(rows: str, count: int, *, seed: int) -> AlignmentRows:
    """The alignment stage's rows, ``count`` of each."""
    words = words_of(rows)
    harmful = corpus.harmful("train")
    refused = align_records(harmful, corpus.long_refusals() if words else corpus.refusals())
    align = mix(refused, _benign(words), 0.5, seed=seed)
    return AlignmentRows(_drawn(align, count, words, seed), _drawn(harmful, count, words, seed + 1))


def _benign(words: int) -> list[Record]:
    return [record for record in corpus.benign() if (record.category in LABEL_KINDS) == (words == 0)]


def _drawn(records: Sequence[Record], count: int, words: int, seed: int) -> list[Record]:
    """``count`` rows in random order, again from the start where they run out."""
    random = Random(seed)
    shuffled = random.sample(records, len(records))
    drawn = list(islice(cycle(shuffled), count))
    if words == 0:
        return drawn
    return [
        replace(record, response=_joined(shuffled, index, round(words * random.uniform(0.5, 1.5))))
        for index, record in enumerate(drawn)
    ]


def _joined(records: Sequence[Record], start: int, words: int) -> str:
    """The first ``words`` words of the answers from a row on."""
    said: list[str] = []
    for record in islice(cycle(records), start % len(records), None):
        said += record.response.split()
        if len(said) >= words:
            break
    return " ".join(said[:words])
