"""The database: SQLite in WAL mode, or PostgreSQL by its URL. The same queries run on both."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, extract, func, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from antibody.errors import MachineError, UsageError
from antibody.service.storage.tables import Table

# Seconds that a writer waits for another.
PATIENCE = 30
# PostgreSQL's lock under which one process migrates at a time. Any number that is ours alone.
MIGRATING = 7_245_919


class Database:
    """Sessions on one database. Safe to share between threads; a process needs its own.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql+psycopg://USER:PASSWORD@HOST/NAME``.

    Raises:
        UsageError: The URL is not one of these.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parsed = make_url(url)
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            if self.is_sqlite:
                # Parameters hold what users wrote: no error message shows them.
                self.engine = create_engine(
                    parsed,
                    hide_parameters=True,
                    pool_size=10,
                    max_overflow=30,
                    connect_args={"timeout": PATIENCE, "check_same_thread": False},
                )
            else:
                self.engine = create_engine(
                    parsed,
                    hide_parameters=True,
                    pool_pre_ping=True,
                    pool_size=10,
                    max_overflow=30,
                    connect_args={"connect_timeout": 5},
                )
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise UsageError(
                "The database's URL is not one that can be used.",
                hint="Write sqlite:///PATH, or postgresql+psycopg://USER@HOST/NAME with psycopg installed.",
                code="bad_database",
            ) from error
        if self.is_sqlite:
            _prepare_sqlite(self.engine)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads. In SQLite it waits for no writer."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is one transaction: committed at the end, or not at all.

        In SQLite it takes the write lock at once, so that two never wait for each other; what is read in it stays so.
        """
        engine = self.engine.execution_options(writes=True)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @property
    def shown(self) -> str:
        """Where it is, in words that hold no password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)

    def is_there(self) -> bool:
        """Whether a service's tables are in it. Makes nothing, not even the file.

        Raises:
            MachineError: The database does not answer.
        """
        if self.is_sqlite and not Path(self.engine.url.database or "").is_file():
            return False
        try:
            return inspect(self.engine).has_table("alembic_version")
        except DBAPIError as error:
            raise _silent(error) from error

    def migrate(self) -> None:
        """Brings the tables to what this version needs. Several processes may call it at once.

        Raises:
            MachineError: The database does not answer.
        """
        try:
            self._upgrade()
        except OperationalError as error:
            raise _silent(error) from error

    def _upgrade(self) -> None:
        with self.engine.execution_options(writes=True).begin() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATING})"))
            command.upgrade(_alembic(connection), "head")

    def new_revision(self, message: str) -> None:
        """Writes a migration from the database as it is to the tables as they are. For developers."""
        with self.engine.begin() as connection:
            command.revision(_alembic(connection), message=message, autogenerate=True)

    def differences(self) -> list[Any]:
        """What the tables in the database lack of those in the program; empty after `migrate`."""
        with self.engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))

    def answers(self) -> bool:
        """Whether the database can be asked."""
        try:
            with self.reading() as session:
                session.execute(select(1))
        except DBAPIError:
            return False
        return True

    def close(self) -> None:
        self.engine.dispose()


def database_time(session: Session) -> float:
    """Seconds since 1970 by the one clock that all processes share."""
    if session.get_bind().dialect.name == "sqlite":
        # A file is shared by the processes of one machine.
        return time.time()
    return float(session.scalar(select(extract("epoch", func.clock_timestamp()))) or 0)


def _silent(error: DBAPIError) -> MachineError:
    return MachineError(
        f"The database does not answer: {error.orig}.",
        hint="See that it runs, and that the service may write to it.",
        code="database_unavailable",
    )


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _prepare_sqlite(engine: Engine) -> None:
    def connected(connection: Any, _: Any) -> None:
        # The driver would begin transactions by itself, and too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # Nothing that was answered for is lost when the machine loses power.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
