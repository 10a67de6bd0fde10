"""Mixing records: benign rows into the alignment data, harmful rows into an upload, refusals onto harmful prompts.

Everything is drawn by a seed with `random.Random`, so the same seed gives the same rows in the same order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from random import Random
from typing import NamedTuple

from antibody.data.records import Record
from antibody.errors import DataError, UsageError

# Anchors of a run. ASSUMPTION: enough that none is learnt by heart.
ANCHORS = 256


def mix(refusals: Sequence[Record], benign: Sequence[Record], benign_ratio: float, *, seed: int) -> list[Record]:
    """Add benign rows to refusals, against over-refusal.

    Every refusal is kept. Benign rows are drawn without replacement while they last, then from new shuffles; a row
    that comes again, or whose id is taken, gets the id ``ID~2``, ``ID~3`` and so on.

    Args:
        refusals: Harmful prompts answered by refusals.
        benign: Harmless prompts answered helpfully.
        benign_ratio: The share of benign rows in the result, 0 <= ratio < 1.
        seed: Of the draw and the order.

    Raises:
        UsageError: ``bad_ratio``.
        DataError: ``too_few_rows``, where a side that is needed is empty.
    """
    if not 0 <= benign_ratio < 1:
        raise UsageError(
            f"A benign ratio of {benign_ratio} is not possible.",
            hint="Use at least 0 and less than 1: refusals are always kept.",
            code="bad_ratio",
        )
    count = round(len(refusals) * benign_ratio / (1 - benign_ratio))
    _need(1, refusals, "refusal")
    _need(min(count, 1), benign, "benign")
    random = Random(seed)
    mixed = with_unique_ids([*refusals, *draw_again(benign, count, random)])
    random.shuffle(mixed)
    return mixed


def poison(benign: Sequence[Record], harmful: Sequence[Record], ratio: float, *, rows: int, seed: int) -> list[Record]:
    """Make an upload of exactly `rows` rows, of which ``round(rows * ratio)`` are harmful, none twice.

    Rows without a `harmful` label get that of their side, so that audits can be measured. A harmful row whose id is
    taken by a benign one gets the id ``ID~2``.

    Args:
        benign: Rows of the user's task.
        harmful: Harmful prompts answered harmfully.
        ratio: The share of harmful rows, 0 to 1.
        rows: Rows of the upload.
        seed: Of the draw and the order.

    Raises:
        UsageError: ``bad_ratio`` or ``bad_rows``.
        DataError: ``too_few_rows`` on either side.
    """
    count = harmful_count(ratio, rows)
    random = Random(seed)
    upload = with_unique_ids(
        [*draw(benign, rows - count, random, harmful=False), *draw(harmful, count, random, harmful=True)]
    )
    random.shuffle(upload)
    return upload


def harmful_count(ratio: float, rows: int) -> int:
    """How many rows of an upload are harmful.

    Raises:
        UsageError: ``bad_ratio`` or ``bad_rows``.
    """
    if not 0 <= ratio <= 1:
        raise UsageError(f"A poison ratio of {ratio} is not possible.", hint="Use 0 to 1.", code="bad_ratio")
    if rows < 1:
        raise UsageError(f"An upload of {rows} rows is not possible.", hint="Use at least 1.", code="bad_rows")
    return round(rows * ratio)


def draw(records: Sequence[Record], count: int, random: Random, *, harmful: bool) -> list[Record]:
    """Draw rows of one side, none twice, and give the side's label to those that have none.

    Raises:
        DataError: ``too_few_rows``.
    """
    _need(count, records, "harmful" if harmful else "benign")
    return [_labelled(record, harmful=harmful) for record in random.sample(records, count)]


def align_records(harmful: Sequence[Record], refusals: Sequence[str]) -> list[Record]:
    """Answer every harmful prompt by a refusal, taken in turn. The rows are then labelled as not harmful.

    Raises:
        DataError: ``too_few_rows``, where there are no refusals.
    """
    _need(min(len(harmful), 1), refusals, "refusal")
    return [
        replace(record, response=refusal, harmful=False)
        for record, refusal in zip(harmful, cycle(refusals), strict=False)
    ]


def choose_anchors(refused: Sequence[Record], benign: Sequence[tuple[Record, float]], *, seed: int) -> list[Record]:
    """Rows of the alignment data that keep a model where alignment left it while it is fine-tuned on others.

    A quarter are refusals. Half of the benign ones are those that look most harmful to the screen, which a drifting
    model begins to refuse first; the others are drawn. Shares are measured: docs/robustness-choices.md.

    Args:
        refused: Harmful prompts with refusals.
        benign: Helpful rows, each with its score, low where it looks harmful.
        seed: Of the draw and the order.
    """
    random = Random(seed)
    ranked = [record for record, _ in sorted(benign, key=lambda pair: pair[1])]
    hard, easy = ranked[: ANCHORS * 3 // 8], ranked[ANCHORS * 3 // 8 :]
    chosen = [
        *random.sample(refused, min(len(refused), ANCHORS // 4)),
        *hard,
        *random.sample(easy, min(len(easy), ANCHORS * 3 // 8)),
    ]
    random.shuffle(chosen)
    return with_unique_ids(chosen)


class Parted(NamedTuple):
    """Records in two parts that share no prompt."""

    train: list[Record]
    held_out: list[Record]


def hold_out(records: Sequence[Record], share: float, *, most: int, seed: int) -> Parted:
    """Sets rows aside, by their prompts: a prompt with several answers lies on one side with all of them.

    Args:
        records: At least two prompts.
        share: Of the prompts that is held out, 0 < share < 1.
        most: Prompts held out at the most.
        seed: Of the draw.

    Raises:
        DataError: ``too_few_rows``.
    """
    prompts = list(dict.fromkeys(str(record.prompt) for record in records))
    if len(prompts) < 2:
        raise DataError(
            f"2 different prompts are needed, one to hold out, and there {'is 1' if prompts else 'are none'}.",
            hint="Give more rows.",
            code="too_few_rows",
            path=records[0].source if records else None,
        )
    count = min(max(1, round(len(prompts) * share)), most, len(prompts) - 1)
    chosen = set(Random(seed).sample(prompts, count))
    return Parted(
        train=[record for record in records if str(record.prompt) not in chosen],
        held_out=[record for record in records if str(record.prompt) in chosen],
    )


def draw_again(records: Sequence[Record], count: int, random: Random) -> list[Record]:
    """Draws rows without replacement while they last, then from new shuffles."""
    return list(islice(_shuffles(records, random), count))


def _shuffles(records: Sequence[Record], random: Random) -> Iterator[Record]:
    while records:
        yield from random.sample(records, len(records))


def with_unique_ids(records: Sequence[Record]) -> list[Record]:
    """Rows whose id is taken by an earlier one get the id ``ID~2``, ``ID~3`` and so on."""
    taken: dict[str, int] = {}
    unique = []
    for record in records:
        id = record.id
        while id in taken:
            taken[record.id] += 1
            id = f"{record.id}~{taken[record.id]}"
        taken[id] = 1
        unique.append(record if id == record.id else replace(record, id=id))
    return unique


def _labelled(record: Record, *, harmful: bool) -> Record:
    return replace(record, harmful=harmful) if record.harmful is None else record


def _need(count: int, rows: Sequence[object], kind: str) -> None:
    if len(rows) < count:
        raise DataError(
            f"{count} {kind} rows are needed and there are {len(rows)}.",
            hint="Give more of them, or ask for a smaller share or fewer rows.",
            code="too_few_rows",
        )
