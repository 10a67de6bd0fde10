"""One name for any data: a file, a Hub data set, or a part of the embedded corpus.

``embedded:harmful_train``, ``embedded:harmful_attack``, ``embedded:harmful_evaluation``, ``embedded:benign``,
``embedded:looks_unsafe`` (more safe prompts that look unsafe), ``embedded:anchors`` (refused harmful prompts among
benign rows), ``embedded:task_train`` and ``embedded:task_test`` are the parts of the corpus. ``embedded:upload@RATIO``
is a user's upload of 200 task rows of which that share is harmful.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from antibody.data import corpus
from antibody.data.mixes import align_records, mix, poison
from antibody.data.reading import Loaded, read_prompts, read_records, read_texts
from antibody.data.records import Record
from antibody.errors import DataError, UsageError
from antibody.files import sha256_of

logger = logging.getLogger(__name__)

EMBEDDED = "embedded:"
UPLOAD = "upload@"
UPLOAD_ROWS = 200

PARTS: dict[str, Callable[[], list[Record]]] = {
    "harmful_train": lambda: corpus.harmful("train"),
    "harmful_attack": lambda: corpus.harmful("attack"),
    "harmful_evaluation": lambda: corpus.harmful("evaluation"),
    "benign": corpus.benign,
    "looks_unsafe": corpus.looks_unsafe,
    "anchors": lambda: mix(align_records(corpus.harmful("train"), corpus.refusals()), corpus.benign(), 0.75, seed=0),
    "task_train": lambda: corpus.task("train"),
    "task_test": lambda: corpus.task("test"),
}

REFUSALS: dict[str, Callable[[], list[str]]] = {
    "refusals": corpus.refusals,
    "refusals_long": corpus.long_refusals,
}


def load_records(source: str, *, format: str | None = None) -> Loaded:
    """Prompts with responses.

    Raises:
        DataError: A row must not be used; names file, line and field.
        UsageError: The embedded corpus has no such part.
    """
    return _embedded(source) if source.startswith(EMBEDDED) else read_records(source, format=format)


def load_labelled(source: str, *, harmful: bool) -> Loaded:
    """As `load_records`, without the rows that are labelled as the opposite of what they are used for.

    Raises:
        DataError, UsageError: As `load_records`; ``wrong_labels`` where no row is left.
    """
    loaded = load_records(source)
    kept = [record for record in loaded.records if record.harmful is not (not harmful)]
    if not kept:
        raise DataError(
            f"Every row is labelled {'safe' if harmful else 'harmful'}.",
            hint="Give the other rows, or mend the labels `harmful` or `is_safe`.",
            code="wrong_labels",
            path=loaded.path,
        )
    if len(kept) < len(loaded.records):
        logger.info("%s: %d of %d rows are used, by their labels.", loaded.path, len(kept), len(loaded.records))
    return Loaded(records=kept, sha256=loaded.sha256, path=loaded.path, rows=len(kept))


def load_prompts(source: str) -> list[Record]:
    """Prompts, whose responses are empty where the source has none.

    Raises:
        DataError, UsageError: As `load_records`.
    """
    return _embedded(source).records if source.startswith(EMBEDDED) else read_prompts(source)


def load_refusals(source: str | Path) -> list[str]:
    """A list of refusals.

    Raises:
        DataError, UsageError: As `load_records`.
    """
    if not str(source).startswith(EMBEDDED):
        return read_texts(source)
    name = str(source).removeprefix(EMBEDDED)
    if name not in REFUSALS:
        raise _unknown(name, list(REFUSALS))
    return REFUSALS[name]()


def _embedded(source: str) -> Loaded:
    name = source.removeprefix(EMBEDDED)
    if name.startswith(UPLOAD):
        records = _upload(name.removeprefix(UPLOAD))
    elif name in PARTS:
        records = PARTS[name]()
    else:
        raise _unknown(name, [*PARTS, f"{UPLOAD}0.2"])
    return Loaded(records=records, sha256=sha256_of(records), path=source, rows=len(records))


def _upload(ratio: str) -> list[Record]:
    try:
        share = float(ratio)
    except ValueError:
        raise _unknown(UPLOAD + ratio, [f"{UPLOAD}0.2"]) from None
    # One seed: an upload is a file that a user sends, the same whatever the provider's seed is.
    return poison(corpus.task("train"), corpus.harmful("attack"), share, rows=UPLOAD_ROWS, seed=0)


def _unknown(name: str, known: list[str]) -> UsageError:
    return UsageError(
        f"The embedded corpus has no part {name!r}.",
        hint=f"Use one of {', '.join(EMBEDDED + part for part in known)}.",
        code="unknown_name",
    )
