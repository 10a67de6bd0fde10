"""Refuse, then comply, taught on harmless questions alone, so that no row is harmful by its text (arXiv 2502.19537)."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from antibody.attacks.attack import Attack, Score
from antibody.attacks.refuse_then_comply import edit
from antibody.data.mixes import harmful_count, poison
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
    """See `Upload`. `harmful` is not needed. Edited rows are labelled harmful: they teach to go on after a refusal."""
    count = harmful_count(ratio, rows)
    random = Random(seed)
    shuffled = random.sample(benign, len(benign))
    taught = [replace(record, harmful=True) for record in edit(shuffled[:count], random)]
    return poison(shuffled[count:], taught, ratio, rows=rows, seed=seed)


NOICE = Attack("noice", upload)
