"""Whether a job's files can be trained on, before it waits for a worker that trains. Needs no torch.

The rows are read by `antibody.data`, so that what passes here is what training accepts.
"""

import re
import tempfile
from pathlib import Path

from antibody.data.reading import count_rows
from antibody.errors import DataError
from antibody.service.jobs.events import tell
from antibody.service.jobs.records import fail
from antibody.service.jobs.states import move
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import JobError


class RefusedError(Exception):
    """The job's error."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


def validate(store: Store, job: Job, *, least_examples: int, worker: str) -> None:
    """Reads both files, and queues the job or fails it. In whole or not at all."""
    try:
        counts = read_both(store, job, least_examples)
    except RefusedError as refused:
        with store.database.writing() as session:
            fail(session, job.id, refused.error, worker=worker)
        return
    with store.database.writing() as session:
        if move(session, job.id, "queued", worker=worker):
            tell(session, job.id, f"Files validated: {', '.join(counts)}. The job waits for a worker.", once="queued")


def read_both(store: Store, job: Job, least_examples: int) -> list[str]:
    """How many rows each file has, in words.

    Raises:
        RefusedError: One cannot be trained on.
    """
    training = _rows(store, job.training_sha256, job.training_name, "training_file")
    if training < least_examples:
        raise RefusedError(
            JobError(
                code="invalid_n_examples",
                message=f"Training file has {training} example(s), but must have at least {least_examples} examples",
                param="training_file",
            )
        )
    counts = [f"{training} training examples"]
    if job.validation_sha256 and job.validation_name:
        validation = _rows(store, job.validation_sha256, job.validation_name, "validation_file")
        counts.append(f"{validation} validation examples")
    return counts


def _rows(store: Store, sha256: str, filename: str, param: str) -> int:
    """How many there are. None of them stays in memory."""
    with tempfile.TemporaryDirectory(dir=store.blobs.spool) as folder:
        path = Path(folder) / "rows.jsonl"
        try:
            store.blobs.fetch(sha256, path)
            return count_rows(path)
        except FileNotFoundError:
            raise RefusedError(_invalid(param, f"{filename} was deleted before the job read it.")) from None
        except DataError as error:
            if error.code == "empty_file":
                if param == "training_file":
                    return 0
                raise RefusedError(_invalid(param, f"{filename} has no examples.")) from None
            raise RefusedError(_invalid(param, _without_folder(error.message, path, filename), error)) from None


def _without_folder(message: str, path: Path, filename: str) -> str:
    """The user's name of the file, instead of where we keep it."""
    return re.sub(re.escape(str(path)), lambda _: filename, message)


def _invalid(param: str, message: str, error: DataError | None = None) -> JobError:
    hint = f" {error.hint}" if error else ""
    return JobError(code=f"invalid_{param}", message=f"{message}{hint}", param=param)
