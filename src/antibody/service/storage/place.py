"""Where the service keeps things, from its settings."""

import os

from antibody.service.settings import StoreSettings
from antibody.service.storage.store import Place

DATABASE_VARIABLE = "ANTIBODY_DATABASE"


def place_of(settings: StoreSettings) -> Place:
    """As absolute paths: the service's other processes may run elsewhere."""
    folder = settings.folder.resolve()
    database = settings.database or os.environ.get(DATABASE_VARIABLE) or f"sqlite:///{folder / 'service.sqlite'}"
    return Place(folder, database, settings.blobs or str(folder / "blobs"))
