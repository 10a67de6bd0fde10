"""Where the service keeps things, from its settings: the same for `antibody serve` and for what manages it."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from antibody.errors import UsageError
from antibody.service.settings import DEFAULT_FOLDER, StoreSettings
from antibody.service.storage.database import Database
from antibody.service.storage.store import Place, make_private

FOLDER_VARIABLE = "ANTIBODY_FOLDER"
DATABASE_VARIABLE = "ANTIBODY_DATABASE"
BLOBS_VARIABLE = "ANTIBODY_BLOBS"
# Before a path.
SQLITE = "sqlite:///"


def place_of(settings: StoreSettings) -> Place:
    """Options, else variables of the environment, else the default.

    Paths are absolute: the service's other processes may run elsewhere.
    """
    folder = (settings.folder or Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)).resolve()
    database = settings.database or os.environ.get(DATABASE_VARIABLE) or _in(folder)
    blobs = settings.blobs or os.environ.get(BLOBS_VARIABLE) or str(folder / "blobs")
    if database.startswith(SQLITE) and not database.endswith(":memory:"):
        database = SQLITE + str(Path(database.removeprefix(SQLITE)).resolve())
    return Place(folder, database, blobs if "://" in blobs else str(Path(blobs).resolve()))


@contextmanager
def opened(place: Place, *, make: bool = False) -> Iterator[Database]:
    """The database of a service that is there, brought up to date.

    Args:
        place: Of the service.
        make: Where there is none, make one, and say where. A folder is made only if the database lies in it.

    Raises:
        UsageError: There is no service, and none is to be made.
        MachineError: The database does not answer, or cannot be made.
    """
    with closing(Database(place.database)) as database:
        if not database.is_there():
            if not make:
                raise UsageError(
                    f"There is no service in {database.shown}.",
                    hint="Name the one that `antibody serve` uses, by its options (--folder, --database) or its "
                    f"variables ({FOLDER_VARIABLE}, {DATABASE_VARIABLE}). `antibody keys create` makes a new one.",
                    code="no_service",
                )
            if place.database == _in(place.folder):
                make_private(place.folder)
            print(
                f"There was no service yet. A new one is made in {database.shown}; "
                "`antibody serve` with the same options and variables serves it.",
                file=sys.stderr,
                flush=True,
            )
        database.migrate()
        yield database


def _in(folder: Path) -> str:
    return f"{SQLITE}{folder / 'service.sqlite'}"
