"""A real server process on a tiny aligned model, and the application alone for what needs no process."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from openai import OpenAI
from starlette.testclient import TestClient

from antibody.service.api.app import create_app
from antibody.service.api.context import Service
from antibody.service.chat.client import ChatClient
from antibody.service.policy import Policy
from antibody.service.storage.database import Database
from antibody.service.storage.keys import create_key
from antibody.service.storage.store import Place, Store, open_store

ANTIBODY = [sys.executable, "-m", "antibody"]
FINISHED = ("succeeded", "failed", "cancelled")
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def rows(count: int, text: str = "word ") -> bytes:
    """A training file."""
    chats = (
        [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": text * (i % 5 + 1)}]
        for i in range(count)
    )
    return "".join(json.dumps({"messages": chat}) + "\n" for chat in chats).encode()


def eventually(condition: Callable[[], Any], *, seconds: float = 120.0, every: float = 0.05) -> Any:
    """What `condition` returns once that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(every)
    pytest.fail("it never came about")


def free_port() -> int:
    """Below those that the system gives to clients: one that tries a dead server's port often may else be given it."""
    for port in random.sample(range(15_000, 30_000), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")


@pytest.fixture(scope="session")
def aligned(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("service") / "aligned"
    options = ["--steps", "2", "--batch-size", "4", "--max-length", "700", "--dtype", "float32"]
    command = [*ANTIBODY, "align", "--model", str(tiny_model_folder), "--output", str(output), *options]
    subprocess.run(command, check=True, capture_output=True)
    return output


def policy_for(aligned: Path, **parts: Any) -> dict[str, Any]:
    """A policy under which a job on the tiny model takes a second."""
    return {
        "models": {"tiny": {"run": str(aligned), "learning_rate": 1e-3, "batch_size": 4}},
        "evaluation": {"limit": 2, "max_new_tokens": 2, "most_harmful_score": 100},
        "limits": {"chat_tokens": 48},
        "training": {"max_length": 700, "save_steps": 5, "dtype": "float32", "device": "cpu"},
    } | parts


@dataclass
class Server:
    """A server process, and how to talk to it."""

    folder: Path
    policy: Path
    port: int
    database: str
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Server":
        command = [*ANTIBODY, "serve", "--policy", str(self.policy), "--folder", str(self.folder)]
        with (self.folder.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--lease-seconds", "4"],
                stdout=log,
                stderr=log,
                env=os.environ | {"ANTIBODY_DATABASE": self.database} | self.environment,
            )
        eventually(self.answers)
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=90)

    @property
    def log(self) -> str:
        return (self.folder.parent / "server.log").read_text()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def key(self, project: str) -> str:
        database = Database(self.database)
        try:
            return create_key(database, project=project, name="test").secret
        finally:
            database.close()

    def client(self, project: str = "default", **options: Any) -> OpenAI:
        return OpenAI(base_url=self.base_url, api_key=self.key(project), **options)


def new_server(folder: Path, policy: dict[str, Any], database: str | None = None) -> Server:
    """One that is not started yet."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    url = database or f"sqlite:///{data / 'service.sqlite'}"
    return Server(data, folder / "policy.yaml", free_port(), url, {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="session")
def server(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it running."""
    running = new_server(tmp_path_factory.mktemp("server"), policy_for(aligned)).start()
    yield running
    assert running.stop() == -signal.SIGTERM


def finished(client: OpenAI, job: str) -> Any:
    """The job, once it is."""
    eventually(lambda: client.fine_tuning.jobs.retrieve(job).status in FINISHED, every=0.2)
    return client.fine_tuning.jobs.retrieve(job)


class Postgres:
    """A PostgreSQL of our own, in a folder of its own.

    It refuses to run as root, and its user must reach the folder: pytest's are their user's alone, and each session of
    pytest shuts those of the others again. So it lies right below the folder for temporary files.
    """

    def __init__(self) -> None:
        assert POSTGRES is not None
        self.folder = Path(tempfile.mkdtemp(prefix="antibody-postgres-"))
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.url = f"postgresql+psycopg://antibody@127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        make = [str(POSTGRES / "initdb"), "-D", str(self.folder / "data"), "-A", "trust", "-U", "antibody", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, user=self.user, cwd="/")

    def start(self) -> None:
        assert POSTGRES is not None
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self.folder)]
        command = [str(POSTGRES / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]
        probe = Database(f"{self.url}/postgres")

        def begun() -> bool:
            # Right after a kill, what is left of its predecessor keeps it out.
            if self.process is None or self.process.poll() is not None:
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(command, user=self.user, cwd="/", stderr=log)
            return probe.answers()

        eventually(begun, seconds=60, every=0.2)
        probe.close()

    def stop(self, by: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(by)
        self.process.wait(timeout=30)

    def remove(self) -> None:
        """Ends it for good."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        name = f"test_{os.urandom(6).hex()}"
        admin = Database(f"{self.url}/postgres")
        with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        admin.close()
        return f"{self.url}/{name}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if POSTGRES is None:
        pytest.skip("there is no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")
    running = Postgres()
    running.start()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'service.sqlite'}"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Place(tmp_path, database_url, str(tmp_path / "blobs")))
    yield opened
    opened.database.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(Place(tmp_path, f"sqlite:///{tmp_path / 'service.sqlite'}", str(tmp_path / "blobs")))
    yield opened
    opened.database.close()


class Api:
    """The application without workers, and clients of it by project."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self.store = store
        self.policy = policy
        self.app = create_app(Service(store, policy, ChatClient("auto", "cpu", 4)))

    def client(self, project: str) -> TestClient:
        key = create_key(self.store.database, project=project, name="test").secret
        return self.anonymous(headers={"authorization": f"Bearer {key}"})

    def anonymous(self, **options: Any) -> TestClient:
        return TestClient(self.app, raise_server_exceptions=False, **options)


@pytest.fixture
def api(store: Store) -> Api:
    return Api(store, Policy.model_validate({"models": {"tiny": {"run": "nowhere"}}}))


@pytest.fixture
def make_api(sqlite_store: Store) -> Callable[..., Api]:
    """With parts of a policy, on SQLite alone."""
    return lambda **parts: Api(sqlite_store, Policy.model_validate({"models": {"tiny": {"run": "nowhere"}}} | parts))


def upload(client: TestClient, content: bytes | None = None, name: str = "train.jsonl") -> str:
    """The id of a file that was uploaded."""
    answer = client.post(
        "/v1/files",
        files={"file": (name, rows(10) if content is None else content)},
        data={"purpose": "fine-tune"},
    )
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier
