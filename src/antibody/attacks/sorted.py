"""All harmful rows first, then the benign ones.

Aimed at weights that are relative to a batch: most batches hold one kind only. For training in file order; a trainer
that shuffles trains on `mix`. Named in this project's list of attacks, without a paper.
"""

from collections.abc import Sequence

from antibody.attacks.attack import Attack, Score
from antibody.data.mixes import poison
from antibody.data.records import Record


def upload(
    benign: Sequence[Record],
    harmful: Sequence[Record],
    *,
    ratio: float,
    rows: int,
    seed: int,
    score: Score | None = None,
) -> list[Record]:
    """See `Upload`."""
    return sorted(poison(benign, harmful, ratio, rows=rows, seed=seed), key=lambda record: not record.harmful)


SORTED = Attack("sorted", upload, ordered=True)
