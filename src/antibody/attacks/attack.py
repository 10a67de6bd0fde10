"""What an attack is: an upload made of records, and how its maker later asks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from antibody.data.mixes import poison
from antibody.data.records import Record

Score = Callable[[Sequence[Record]], Sequence[float]]
"""Rows in, a float a row out: high where the defence treats the row as benign."""

Edit = Callable[[Sequence[Record], Random], list[Record]]
"""Rows in; the same rows, in the same order, changed, out."""


class Upload(Protocol):
    """Makes the upload."""

    def __call__(
        self,
        benign: Sequence[Record],
        harmful: Sequence[Record],
        *,
        ratio: float,
        rows: int,
        seed: int,
        score: Score | None = None,
    ) -> list[Record]:
        """Exactly `rows` rows with unique ids, the same for the same seed.

        Args:
            benign: Rows of the user's task.
            harmful: Harmful prompts answered harmfully.
            ratio: The share of rows that teach compliance with harm; these are labelled harmful.
            rows: Rows of the upload.
            seed: Of all that is drawn.
            score: What the attacker knows of the defence; used where `Attack.uses_score`, not looked at elsewhere.

        Raises:
            UsageError: ``bad_ratio``, ``bad_rows`` or ``no_score``.
            DataError: ``too_few_rows``.
        """


def as_it_is(record: Record) -> Record:
    """Ask without any trick."""
    return record


@dataclass(frozen=True)
class Attack:
    """An attack on fine-tuning.

    Attributes:
        name: Name in `ATTACKS`.
        upload: Makes the rows that are uploaded.
        ask: How the attacker puts a held-out prompt to the tuned model; the same for the same record.
        uses_score: Whether the upload needs a `score`.
        ordered: Whether the order of the rows is the attack, so that they are trained on in it.
        most: The largest ratio that it makes.
    """

    name: str
    upload: Upload
    ask: Callable[[Record], Record] = as_it_is
    uses_score: bool = False
    ordered: bool = False
    most: float = 1.0


def edited(edit: Edit) -> Upload:
    """The upload of an attack that changes each harmful row by itself and mixes it among benign ones."""

    def upload(
        benign: Sequence[Record],
        harmful: Sequence[Record],
        *,
        ratio: float,
        rows: int,
        seed: int,
        score: Score | None = None,
    ) -> list[Record]:
        return poison(benign, edit(harmful, Random(seed)), ratio, rows=rows, seed=seed)

    return upload
