"""The rows that a method drops from an upload: one process chooses, and a training that goes on chooses no more.

Who chooses may be a paid service, or answer differently the second time; then the processes would train on different
rows, and a resumed training on others than it was begun on.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from antibody.data.records import Record
from antibody.files import sha256_of, write_json
from antibody.training.methods import Method, Option
from antibody.training.provided import Provided

KEPT_FILE = "kept_rows.json"


def chosen_rows(
    method: Method, upload: Sequence[Record], provided: Provided, options: Mapping[str, Option], begun: Path | None
) -> list[Record]:
    """The rows that a method trains on. Of one that drops rows the main process chooses alone; the others get no rows
    here, and learn them by `shared_rows`.

    Args:
        method: The method.
        upload: The user's rows.
        provided: The provider's part.
        options: All options of the method.
        begun: Where `keep_choice` may have kept the choice among these rows by these options; None to choose anew.

    Raises:
        AntibodyError: As the method.
    """
    if not method.drops:
        return method.trained_rows(upload, provided, options)
    if not PartialState().is_main_process:
        return []
    place = begun / KEPT_FILE if begun is not None else None
    if place is not None and place.exists():
        kept = json.loads(place.read_text(encoding="utf-8"))
        if kept["of"] == _identity(upload, options):
            return [upload[index] for index in kept["rows"]]
    return method.trained_rows(upload, provided, options)


def shared_rows(upload: Sequence[Record], chosen: Sequence[Record]) -> list[Record]:
    """What the main process chose, in every process. All of them must call this.

    Args:
        upload: The user's rows, the same in every process.
        chosen: What `chosen_rows` gave.
    """
    sent = [_indices(upload, chosen)]
    broadcast_object_list(sent)
    return [upload[index] for index in sent[0]]


def keep_choice(
    folder: Path, upload: Sequence[Record], chosen: Sequence[Record], options: Mapping[str, Option]
) -> None:
    """Keeps the choice for a training that goes on in this folder. The main process alone writes."""
    if PartialState().is_main_process:
        write_json(folder / KEPT_FILE, {"of": _identity(upload, options), "rows": _indices(upload, chosen)})


def _identity(upload: Sequence[Record], options: Mapping[str, Option]) -> str:
    return sha256_of([[(record.prompt, record.response) for record in upload], sorted(options.items())])


def _indices(upload: Sequence[Record], chosen: Sequence[Record]) -> list[int]:
    ids = {record.id for record in chosen}
    return [index for index, record in enumerate(upload) if record.id in ids]
