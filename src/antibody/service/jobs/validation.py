"""Whether a job's files can be trained on, before it waits for a worker that trains. Needs no torch.

The rows are read by `antibody.data`, so that what passes here is what training accepts.
"""

import logging
import tempfile
from pathlib import Path
from typing import NamedTuple

from antibody.data.reading import stream_records
from antibody.data.records import Record
from antibody.errors import DataError, ModelError
from antibody.service.jobs.events import tell
from antibody.service.jobs.lengths import count_cut
from antibody.service.jobs.problems import Problems, invalid_file
from antibody.service.jobs.records import fail
from antibody.service.jobs.states import move
from antibody.service.policy import Policy
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import JobError

logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """The job's error."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class Counted(NamedTuple):
    """A file that can be trained on.

    Attributes:
        kind: training or validation.
        rows: Its examples.
        cut: Answers of which the end is too long to be read.
    """

    kind: str
    rows: int
    cut: int


def validate(store: Store, job: Job, policy: Policy, *, worker: str) -> None:
    """Reads both files, and queues the job or fails it. In whole or not at all."""
    try:
        files = read_both(store, job, policy)
    except RefusedError as refused:
        with store.database.writing() as session:
            fail(session, job.id, refused.error, worker=worker)
        return
    counts = ", ".join(f"{file.rows} {file.kind} examples" for file in files)
    with store.database.writing() as session:
        if not move(session, job.id, "queued", worker=worker):
            return
        for file in files:
            if file.cut:
                tell(
                    session,
                    job.id,
                    f"{file.cut} answer(s) of the {file.kind} file are cut at the end: the service reads at most "
                    f"{policy.training.max_length} tokens of an example. Its provider can raise that.",
                    once=f"cut-{file.kind}",
                    level="warn",
                )
        tell(session, job.id, f"Files validated: {counts}. The job waits for a worker.", once="queued")


def read_both(store: Store, job: Job, policy: Policy) -> list[Counted]:
    """Reads the training file and, where there is one, the validation file.

    Raises:
        RefusedError: One cannot be trained on.
    """
    training = _read(store, job, policy, "training")
    least = policy.limits.least_examples
    if training.rows < least:
        raise RefusedError(
            JobError(
                code="invalid_n_examples",
                message=f"Training file has {training.rows} example(s), but must have at least {least} examples",
                param="training_file",
            )
        )
    return [training, _read(store, job, policy, "validation")] if job.validation_sha256 else [training]


def _read(store: Store, job: Job, policy: Policy, kind: str) -> Counted:
    """Reads one of them. No row stays in memory."""
    sha256, filename = (
        (job.training_sha256, job.training_name)
        if kind == "training"
        else (str(job.validation_sha256), str(job.validation_name))
    )
    param = f"{kind}_file"
    problems, rows, cut = Problems(), 0, 0
    with tempfile.TemporaryDirectory(dir=store.blobs.spool) as folder:
        path = Path(folder) / "rows.jsonl"
        try:
            store.blobs.fetch(sha256, path)
            for records in stream_records(path, refused=problems.add):
                rows += 1
                cut += _count_cut(records, job, policy, problems)
        except FileNotFoundError:
            raise RefusedError(_invalid(param, f"{filename} was deleted before the job read it.")) from None
        except DataError as error:
            if error.code != "empty_file":
                raise RefusedError(invalid_file(param, filename, [error])) from None
            if kind == "training":
                return Counted(kind, 0, 0)
            raise RefusedError(_invalid(param, f"{filename} has no examples.")) from None
    if problems.count:
        raise RefusedError(invalid_file(param, filename, problems.first, problems.count))
    return Counted(kind, rows, cut)


def _count_cut(records: list[Record], job: Job, policy: Policy, problems: Problems) -> int:
    if job.model not in policy.models:
        # It is no longer offered, which the worker that would train it tells.
        return 0
    try:
        return count_cut(records, policy.models[job.model].run, policy.training.max_length, problems.add)
    except ModelError as error:
        logger.error("The tokenizer of %s cannot be used: %s", job.model, error)  # noqa: TRY400
        raise RefusedError(
            JobError(code="server_error", message=f"The service cannot read the model ({error.code}).", param="model")
        ) from None


def _invalid(param: str, message: str) -> JobError:
    return JobError(code=f"invalid_{param}", message=message, param=param)
