"""The service's commands: `antibody serve`, `antibody keys ...` and `antibody review ...`."""

import datetime
from typing import Annotated, Any

from cyclopts import App
from rich.console import Console
from rich.table import Table

from antibody.cli_options import Flat, Json
from antibody.errors import UsageError
from antibody.files import to_json
from antibody.service.settings import ServeSettings, StoreSettings

keys = App(name="keys", help="Make, list and revoke the keys of the fine-tuning service.")
review = App(name="review", help="Jobs that the policy holds because most of their rows are judged harmful.")

DEFAULT_STORE = StoreSettings()
DEFAULT_SERVE = ServeSettings()


def serve(settings: Annotated[ServeSettings, Flat] = DEFAULT_SERVE) -> None:
    """Serve an OpenAI-compatible fine-tuning API whose jobs are defended."""
    try:
        from antibody.service.serve import serve as run_service
    except ModuleNotFoundError as error:
        raise _extra_missing(error) from error

    run_service(settings)


@keys.command
def create(
    store: Annotated[StoreSettings, Flat] = DEFAULT_STORE,
    *,
    project: str = "default",
    name: str = "",
    json: Json = False,
) -> None:
    """Make a key. It is shown once.

    Args:
        project: Whose key it is; made if there is none of that name.
        name: A note, to tell keys apart.
        json: Print one JSON object on standard output.
    """
    from antibody.service.storage.keys import create_key

    key = create_key(_database(store), project=project, name=name)
    print(to_json({"id": key.id, "project": project, "key": key.secret}) if json else key.secret)


@keys.command(name="list")
def list_(store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """List all keys, without their secrets."""
    from antibody.service.storage.keys import list_keys

    rows = list_keys(_database(store))
    if json:
        print(to_json({"keys": [row._asdict() for row in rows]}))
        return
    table = Table("Id", "Project", "Name", "Made", "Revoked")
    for row in rows:
        table.add_row(row.id, row.project, row.name, _time(row.created_at), _time(row.revoked_at))
    Console().print(table)


@keys.command
def revoke(key: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Revoke a key. Within five seconds it opens nothing.

    Args:
        key: Its id, as `antibody keys list` shows it.
        store: Where the service keeps things.
    """
    from antibody.service.storage.keys import revoke_key

    revoke_key(_database(store), key)


@review.command(name="list")
def list_held(store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """List the jobs that are held."""
    from antibody.service.jobs.review import held_jobs

    rows = held_jobs(_database(store))
    if json:
        print(to_json({"jobs": [row._asdict() for row in rows]}))
        return
    table = Table("Job", "Project", "Training file", "Judged")
    for row in rows:
        table.add_row(row.job, row.project, row.training_file, row.judged)
    Console().print(table)


@review.command
def approve(job: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Let a held job train all the same; the gate goes on withholding its rows.

    Args:
        job: Its id.
        store: Where the service keeps things.
    """
    from antibody.service.jobs.review import approve_job

    approve_job(_database(store), job)


@review.command
def refuse(job: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Let a held job fail.

    Args:
        job: Its id.
        store: Where the service keeps things.
    """
    from antibody.service.jobs.review import refuse_job

    refuse_job(_database(store), job)


def _database(settings: StoreSettings) -> Any:
    try:
        from antibody.service.storage.place import place_of
        from antibody.service.storage.store import open_store
    except ModuleNotFoundError as error:
        raise _extra_missing(error) from error

    return open_store(place_of(settings)).database


def _extra_missing(error: ModuleNotFoundError) -> UsageError:
    return UsageError(
        f"The service needs {error.name}, which is not installed.",
        hint="pip install 'antibody-ft[service]'",
        code="extra_missing",
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
