"""Harmful rows in runs of a batch's length, at random places among the batches of benign rows.

Aimed at weights that are relative to a batch: a batch of harmful rows alone has no benign row to stand out from. For
training in file order; a trainer that shuffles trains on `mix`. Named in this project's list of attacks, without a
paper.
"""

from collections.abc import Sequence
from random import Random

from antibody.attacks.attack import Attack, Score
from antibody.data.mixes import poison
from antibody.data.records import Record

BATCH = 16
"""Rows of a run: the paper's batch size (arXiv 2603.00498)."""


def upload(
    benign: Sequence[Record],
    harmful: Sequence[Record],
    *,
    ratio: float,
    rows: int,
    seed: int,
    score: Score | None = None,
) -> list[Record]:
    """See `Upload`. What fills no batch comes last, so that all runs begin where a batch begins."""
    mixed = poison(benign, harmful, ratio, rows=rows, seed=seed)
    batches: list[list[Record]] = []
    rest: list[Record] = []
    for label in (True, False):
        side = [record for record in mixed if bool(record.harmful) is label]
        full = len(side) - len(side) % BATCH
        batches += [side[start : start + BATCH] for start in range(0, full, BATCH)]
        rest += side[full:]
    Random(seed).shuffle(batches)
    return [record for batch in [*batches, rest] for record in batch]


CLUSTERED = Attack("clustered", upload, ordered=True)
