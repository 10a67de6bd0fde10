"""The service's commands: `antibody serve`, `antibody keys ...`, `antibody review ...` and `antibody webhooks ...`."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
webhooks = App(name="webhooks", help="Where projects are told that their jobs have finished.")

DEFAULT_STORE = StoreSettings()
DEFAULT_SERVE = ServeSettings()
# Wider than any table.
UNLIMITED = 100_000


def serve(settings: Annotated[ServeSettings, Flat] = DEFAULT_SERVE) -> None:
    """Serve an OpenAI-compatible fine-tuning API whose jobs are defended."""
    with _extra():
        from antibody.service.serve import serve as run_service

    run_service(settings)


@keys.command
def create(
    store: Annotated[StoreSettings, Flat] = DEFAULT_STORE,
    *,
    project: str = "default",
    name: str = "",
    json: Json = False,
) -> None:
    """Make a key. It is shown once. Where there is no service yet, one is made, for `antibody serve` to find.

    Args:
        store: Where the service keeps things.
        project: Whose key it is; made if there is none of that name.
        name: A note, to tell keys apart.
        json: Print one JSON object on standard output.
    """
    with _extra():
        from antibody.service.storage.keys import check_project, create_key

    check_project(project)
    with _database(store, make=True) as database:
        key = create_key(database, project=project, name=name)
    print(to_json({"id": key.id, "project": project, "key": key.secret}) if json else key.secret)


@keys.command(name="list")
def list_(store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """List all keys, without their secrets."""
    with _extra():
        from antibody.service.storage.keys import list_keys

    with _database(store) as database:
        rows = list_keys(database)
    if json:
        print(to_json({"keys": [row._asdict() for row in rows]}))
        return
    made = ((row.id, row.project, row.name, _time(row.created_at), _time(row.revoked_at)) for row in rows)
    _print_table(("Id", "Project", "Name", "Made", "Revoked"), made)


@keys.command
def revoke(key: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Revoke a key. Within five seconds it opens nothing.

    Args:
        key: Its id, as `antibody keys list` shows it.
        store: Where the service keeps things.
    """
    with _extra():
        from antibody.service.storage.keys import revoke_key

    with _database(store) as database:
        revoke_key(database, key)
    print(f"{key} is revoked. Within five seconds it opens nothing.")


@review.command(name="list")
def list_held(store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """List the jobs that are held."""
    with _extra():
        from antibody.service.jobs.review import held_jobs

    with _database(store) as database:
        rows = held_jobs(database)
    if json:
        print(to_json({"jobs": [row._asdict() for row in rows]}))
        return
    _print_table(("Job", "Project", "Training file", "Judged"), rows)


@review.command
def show(job: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """Show which rows of a job are judged harmful, by their lines in the training file and without their text.

    Args:
        job: Its id.
        store: Where the service keeps things.
        json: Print one JSON object on standard output, with all rows.
    """
    with _extra():
        from antibody.service.jobs.review import judgement
        from antibody.service.storage.place import place_of

    with _database(store) as database:
        rows = judgement(database, place_of(store).runs, job)
    if json:
        print(to_json({"job": job, "rows": rows}))
        return
    # No ids: they are the user's, who may have written anything there.
    withheld = ((str(row["line"]), f"{100 * row['benign_probability']:.1f}%") for row in rows if row["withheld"])
    _print_table(("Line", "Benign, probably"), withheld)


@review.command
def approve(job: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Let a held job train all the same; the gate goes on withholding its rows.

    Args:
        job: Its id.
        store: Where the service keeps things.
    """
    with _extra():
        from antibody.service.jobs.review import approve_job

    with _database(store) as database:
        approve_job(database, job)
    print(f"{job} is approved and waits for a worker. The gate goes on withholding the rows it judges harmful.")


@review.command
def refuse(job: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Let a held job fail.

    Args:
        job: Its id.
        store: Where the service keeps things.
    """
    with _extra():
        from antibody.service.jobs.review import refuse_job

    with _database(store) as database:
        refuse_job(database, job)
    print(f"{job} is refused and has failed, with the code mostly_suppressed.")


@webhooks.command(name="create")
def create_webhook(
    store: Annotated[StoreSettings, Flat] = DEFAULT_STORE,
    *,
    url: str,
    project: str = "default",
    json: Json = False,
) -> None:
    """Tell a project that its jobs have finished. The secret that its receiver checks messages by is shown once.

    Args:
        store: Where the service keeps things.
        url: To which it is posted; https, or http.
        project: Whose jobs.
        json: Print one JSON object on standard output.
    """
    with _extra():
        from antibody.service.webhooks.endpoints import create_webhook as create_endpoint

    with _database(store) as database:
        made = create_endpoint(database, project=project, url=url)
    print(to_json(made._asdict() | {"project": project}) if json else made.secret)


@webhooks.command(name="list")
def list_webhooks(store: Annotated[StoreSettings, Flat] = DEFAULT_STORE, *, json: Json = False) -> None:
    """List all webhooks, without their secrets."""
    with _extra():
        from antibody.service.webhooks.endpoints import list_webhooks as list_endpoints

    with _database(store) as database:
        rows = list_endpoints(database)
    if json:
        print(to_json({"webhooks": [row._asdict() for row in rows]}))
        return
    made = ((row.id, row.project, row.url, _time(row.created_at), _time(row.gone_at)) for row in rows)
    _print_table(("Id", "Project", "URL", "Made", "Gone"), made)


@webhooks.command(name="delete")
def delete_webhook(webhook: str, store: Annotated[StoreSettings, Flat] = DEFAULT_STORE) -> None:
    """Delete a webhook. What it was not told yet, it is not told any more.

    Args:
        webhook: Its id, as `antibody webhooks list` shows it.
        store: Where the service keeps things.
    """
    with _extra():
        from antibody.service.webhooks.endpoints import delete_webhook as delete_endpoint

    with _database(store) as database:
        delete_endpoint(database, webhook)
    print(f"{webhook} is deleted.")


def _database(settings: StoreSettings, *, make: bool = False) -> AbstractContextManager[Any]:
    with _extra():
        from antibody.service.storage.place import opened, place_of

    return opened(place_of(settings), make=make)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Whole, however narrow the terminal: an identifier that is cut or broken cannot be copied."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=UNLIMITED, markup=False, highlight=False).print(table)


@contextmanager
def _extra() -> Iterator[None]:
    """Around imports of what only the service needs.

    Raises:
        UsageError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The service needs {error.name}, which is not installed.",
            hint="pip install 'antibody-ft[service]'",
            code="extra_missing",
        ) from error


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
