"""No harmful row at all: safety that wears off by training on harmless rows (arXiv 2310.03693, section 4.4).

Rows that would keep it up are left out: those that answer what only looks unsafe.
"""

from collections.abc import Sequence

from antibody.attacks.attack import Attack, Score
from antibody.data.mixes import poison
from antibody.data.records import Record
from antibody.errors import UsageError

SAFETY_CATEGORY = "looks_unsafe"
"""The embedded corpus's rows against over-refusal."""


def upload(
    benign: Sequence[Record],
    harmful: Sequence[Record],
    *,
    ratio: float,
    rows: int,
    seed: int,
    score: Score | None = None,
) -> list[Record]:
    """See `Upload`. Any `ratio` but 0 is refused, so that no table shows this attack under a share that it has not."""
    if ratio != 0:
        raise UsageError(
            f"benign_drift with a ratio of {ratio} is not possible: it has no harmful rows.",
            hint="Use a ratio of 0.",
            code="bad_ratio",
        )
    harmless = [record for record in benign if not record.harmful and record.category != SAFETY_CATEGORY]
    return poison(harmless, [], 0, rows=rows, seed=seed)


BENIGN_DRIFT = Attack("benign_drift", upload, most=0.0)
