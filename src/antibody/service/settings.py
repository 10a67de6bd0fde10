"""What a provider may choose for the service. These are the options of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from antibody.cli_options import Several
from antibody.errors import UsageError

DEFAULT_FOLDER = "runs/service"


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where the service keeps things.

    Attributes:
        folder: Trained models, and by default everything else. Default: ANTIBODY_FOLDER of the environment, else
            runs/service.
        database: sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME. Default: ANTIBODY_DATABASE of the
            environment, where a password does not show, else SQLite in the folder.
        blobs: Contents of files: a folder, or a URL that fsspec knows. Default: ANTIBODY_BLOBS of the environment,
            else in the folder.
    """

    folder: Path | None = None
    database: str | None = None
    blobs: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServeSettings(StoreSettings):
    """Options of the service.

    Attributes:
        model: A base model as NAME=RUN; may be given several times. Without any, the bundled model, aligned once.
        policy: The provider's policy, a YAML file.
        host: Address to listen at. TLS is a proxy's work.
        port: Port to listen at.
        slots: Worker processes that train, each one job at a time. 0 leaves jobs to other servers.
        executor: local trains in the worker processes; ray on a cluster that they steer.
        processes: Processes that share a job's training, with executor ray.
        cluster: Ray's address, with executor ray: ray://HOST:PORT, auto, or local for a new one on this machine.
        lease_seconds: After which a worker that says nothing counts as dead.
    """

    model: Annotated[tuple[str, ...], Several] = ()
    policy: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    slots: int = 1
    executor: Literal["local", "ray"] = "local"
    processes: int = 1
    cluster: str = "auto"
    lease_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.slots < 0 or self.processes < 1 or not self.lease_seconds > 0:
            raise UsageError(
                "slots, processes or lease_seconds is out of range.", hint="Use 0, 1 or more.", code="out_of_range"
            )
        if self.executor == "local" and self.processes > 1:
            raise UsageError(
                f"The local executor trains a job in one process, not {self.processes}.",
                hint="Use --executor ray --cluster local, or leave --processes out.",
                code="conflict",
            )
