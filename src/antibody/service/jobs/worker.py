"""The worker process: leases a job, works on it, and leases the next. `python -m antibody.service.jobs.worker`.

It ends when its standard input does, as when the server that began it died: after the step it is at, with a checkpoint.
"""

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError

from antibody.background import meanwhile
from antibody.errors import AntibodyError, DataError, TrainingError
from antibody.failures import machine_failures
from antibody.quiet import log_as_a_service, quieten_libraries
from antibody.service.jobs.events import tell
from antibody.service.jobs.leases import alone_in, claim, release, renew, status_if_held
from antibody.service.jobs.orders import Order, Role, read_order
from antibody.service.jobs.problems import invalid_file
from antibody.service.jobs.records import fail
from antibody.service.jobs.room import disk_has_room, memory_for
from antibody.service.jobs.states import move
from antibody.service.jobs.stopping import HeldError, StoppedError
from antibody.service.jobs.validation import validate
from antibody.service.jobs.waiting import wait_for, wait_for_memory, wait_for_model
from antibody.service.storage.lacking import what_lacked
from antibody.service.storage.runs import TRAINING_ROWS, VALIDATION_ROWS, forget_rows
from antibody.service.storage.store import Store, open_store
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import JobError, JobStatus

logger = logging.getLogger(__name__)

PARAMETERS = {TRAINING_ROWS: "training_file", VALIDATION_ROWS: "validation_file"}
CLAIMED: dict[Role, tuple[JobStatus, ...]] = {"train": ("queued", "running"), "validate": ("validating_files",)}
# Longest between two attempts to begin a job that another process of this machine still holds.
BACK_OFF = 2.0


def main() -> None:
    quieten_libraries()
    log_as_a_service()
    order = read_order(sys.stdin.readline())
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    # Ctrl-C in a terminal reaches all of them; the server tells this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_until_orphaned, args=(stopping,), daemon=True).start()
    try:
        with machine_failures():
            work(order, stopping)
    except AntibodyError as error:
        logger.error("A worker cannot work: %s", error)  # noqa: TRY400 - the reason is in the message
        sys.exit(error.exit_code)


def work(order: Order, stopping: threading.Event) -> None:
    """Works on jobs until it is told to stop."""
    if order.role == "train":
        # Seconds, which no job should wait for.
        import antibody.service.jobs.training  # noqa: F401, PLC0415
    store = open_store(order.place)
    while not stopping.is_set():
        try:
            job = claim(store.database, order.worker, CLAIMED[order.role], order.lease_seconds)
        except DBAPIError:
            logger.warning("The database does not answer.")
            job = None
        if job is None:
            stopping.wait(order.poll_seconds)
            continue
        with _heartbeat(store, order, job, stopping):
            blameless = _attempt(store, order, job)
            _patiently(order, stopping, partial(_give_back, store, order, job, blameless=blameless))


def _until_orphaned(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


@contextmanager
def _heartbeat(store: Store, order: Order, job: str, stopping: threading.Event) -> Iterator[None]:
    """Meanwhile renews the lease; once told to stop, puts the job back into the queue, which its training notices."""

    def beat(ended: threading.Event) -> None:
        while not ended.wait(min(1.0, order.lease_seconds / 4)):
            try:
                renew(store.database, order.worker, job, order.lease_seconds)
                # A job whose files are being read is read again, and must not be queued unread.
                if stopping.is_set() and order.role == "train":
                    _put_back(store, order, job)
            except DBAPIError:
                logger.warning("The database does not answer; the lease of %s is not renewed.", job)

    with meanwhile(beat):
        yield


def _put_back(store: Store, order: Order, job: str) -> None:
    """At every beat: it may be running only now. One that its user paused, or the policy holds, stays so."""
    with store.database.writing() as session:
        if move(session, job, "queued", worker=order.worker, only_from="running"):
            tell(session, job, "The worker is being stopped; the job continues from its checkpoint.")


def _attempt(store: Store, order: Order, job_id: str) -> bool:
    """Works on a leased job, whatever comes of it. Returns whether the attempt does not count against the job."""
    try:
        return _worked(store, order, job_id)
    except DBAPIError as error:
        logger.warning("The database does not answer, or is full; %s is left to be continued.", job_id)
        # A database that is away is no fault of the job's; one that refuses what it is given may be.
        return isinstance(error, OperationalError)


def _worked(store: Store, order: Order, job_id: str) -> bool:
    try:
        with store.database.reading() as session:
            job = session.scalars(select(Job).where(Job.id == job_id)).one()
        if job.attempts > order.policy.training.most_attempts:
            error = JobError(
                code="server_error",
                message=f"The job was begun {job.attempts - 1} times, and every time its worker was lost.",
            )
            _fail(store, order, job_id, error)
            return False
        if order.role == "validate":
            validate(store, job, order.policy, worker=order.worker)
            return True
        return _train(store, order, job)
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - a defect of ours must end one job, and not all
        if (lacking := what_lacked(error)) is not None:
            logger.warning("%s waits for the %s.", job_id, lacking)
            wait_for(lacking, store.database, order.worker, job_id)
            return True
        # Where it was, and no message: that could hold what is in a file.
        frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        logger.error("%s ended by %s at %s", job_id, type(error).__name__, " < ".join(reversed(frames[-6:])))  # noqa: TRY400
        _fail(store, order, job_id, JobError(code="server_error", message="The service failed. Create the job again."))
        return False


def _train(store: Store, order: Order, job: Job) -> bool:
    # torch, which a worker that validates never needs.
    from antibody.service.jobs.training import train  # noqa: PLC0415

    if job.model not in order.policy.models:
        logger.warning("%s waits: the policy names no model %s.", job.id, job.model)
        wait_for_model(store.database, order.worker, job)
        return True
    if order.cluster is None:
        memory = memory_for(order.policy.models[job.model].run)
        if memory.needed > memory.free:
            logger.warning("%s: there is not enough memory to train it.", job.id)
            wait_for_memory(store.database, order.worker, job, memory)
            return True
    if not disk_has_room(store.place.runs):
        logger.warning("%s waits for the disk.", job.id)
        wait_for("disk", store.database, order.worker, job.id)
        return True
    with alone_in(store.place.runs / job.id) as alone:
        if not alone:
            # Its lease has run out, but it is still at its last step.
            threading.Event().wait(BACK_OFF)
            return True
        with store.database.writing() as session:
            if move(session, job.id, "running", worker=order.worker):
                tell(session, job.id, "Fine-tuning job started", once="started")
            elif status_if_held(session, order.worker, job.id) != "running":
                # Cancelled or paused since it was claimed.
                return True
            elif job.attempts > 1:
                tell(session, job.id, "The worker was lost; the job continues from its last checkpoint.", level="warn")
        try:
            with machine_failures():
                train(store, order, job)
        except StoppedError as stopped:
            logger.info("%s: %s", job.id, stopped.message)
            _stopped(store, order, job.id, stopped)
        except AntibodyError as error:
            if what_lacked(error) is not None:
                raise
            _fail(store, order, job.id, _explained(error, job))
        _forget_rows(store, job.id)
    return True


def _stopped(store: Store, order: Order, job: str, stopped: StoppedError) -> None:
    if not isinstance(stopped, HeldError):
        return
    with store.database.writing() as session:
        if move(session, job, "paused", worker=order.worker, held=True):
            tell(
                session,
                job,
                "Too much of the training file is judged harmful; the job is held for review.",
                level="warn",
            )


def _forget_rows(store: Store, job: str) -> None:
    """Of a job that is finished. One that its user cancels later is the sweep's."""
    with store.database.reading() as session:
        finished = session.scalar(select(Job.finished_at).where(Job.id == job)) is not None
    if finished:
        forget_rows(store.place.runs / job)


def _explained(error: AntibodyError, job: Job) -> JobError:
    """An error of ours, in the wire's codes and without our paths."""
    if isinstance(error, DataError) and error.path and (param := PARAMETERS.get(Path(error.path).name)):
        name = job.training_name if param == "training_file" else job.validation_name
        return invalid_file(param, str(name), [error])
    if error.code == "mostly_suppressed":
        return JobError(code=error.code, message=f"{error.message} {error.hint}", param="training_file")
    if isinstance(error, TrainingError) and error.code == "diverged":
        return JobError(
            code="training_diverged",
            message="The loss is not a number. Choose a lower learning_rate_multiplier.",
            param="hyperparameters",
        )
    # For the provider. What is wrong with data could quote them.
    logger.error("%s: training failed: %s", job.id, error.code if isinstance(error, DataError) else error)
    return JobError(code="server_error", message=f"The service could not train the model ({error.code}).")


def _fail(store: Store, order: Order, job: str, error: JobError) -> None:
    with store.database.writing() as session:
        fail(session, job, error, worker=order.worker)


def _give_back(store: Store, order: Order, job: str, *, blameless: bool) -> None:
    with store.database.writing() as session:
        release(session, order.worker, job, blameless=blameless)


def _patiently(order: Order, stopping: threading.Event, action: Callable[[], None]) -> None:
    """Does it once the database answers. Given up, the lease ends by itself."""
    for _ in range(int(order.lease_seconds / order.poll_seconds)):
        try:
            action()
        except DBAPIError:
            stopping.wait(order.poll_seconds)
        else:
            return


if __name__ == "__main__":
    main()
