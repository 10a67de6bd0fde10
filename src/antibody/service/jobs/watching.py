"""A training's progress, told to the database while it runs, and the user's wishes, told to the training.

Goes along with `antibody.finetune` in every process that shares it. The first process speaks to the database; all of
them stop together.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from transformers import TrainerCallback

from antibody.data.reading import Loaded, read_records
from antibody.files import write_jsonl
from antibody.service.jobs.events import add_checkpoint, tell
from antibody.service.jobs.leases import writing_if_held
from antibody.service.jobs.listening import Heard, Listener
from antibody.service.jobs.stopping import HeldError, LostLeaseError, RefusedUploadError, StoppedError
from antibody.service.jobs.validation_loss import TokenLoss, token_loss
from antibody.service.policy import Defence
from antibody.service.storage.database import Database
from antibody.service.storage.tables import Checkpoint, Job
from antibody.service.wire.jobs import CheckpointMetrics
from antibody.training.agreement import agreed

# Lines that an event names; the file of judgements names all.
MOST_LINES = 100


class Watched(NamedTuple):
    """What a training needs to know of its job. Crosses to the workers of a cluster.

    Attributes:
        database: URL.
        worker: Who holds the lease.
        job: Its id.
        lease_seconds: For how long a database that does not answer is trusted to say nothing new.
        on_cluster: Whether it is trained in other processes than the worker.
        defence: The policy's when the job was begun.
        approved: Whether the provider let it train although it is mostly suppressed.
        validation: The validation rows' file.
        audit: Where the judgement of an upload goes that is held or refused.
    """

    database: str
    worker: str
    job: str
    lease_seconds: float
    on_cluster: bool
    defence: Defence
    approved: bool
    validation: Path | None
    audit: Path


def watch(watched: Watched, trainer: Any, upload: Loaded) -> list[TrainerCallback]:
    """For `antibody.finetune`, with the first argument bound."""
    return [Watcher(watched, trainer, upload)]


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Tells and is told. See the module."""

    def __init__(self, watched: Watched, trainer: Any, upload: Loaded) -> None:
        self.watched = watched
        self.trainer = trainer
        self.upload = upload
        self.database = Database(watched.database)
        self.listener = Listener(
            self.database, watched.worker, watched.job, watched.lease_seconds, ends_early=watched.on_cluster
        )
        self.untold: list[Callable[[Session], None]] = []
        self.stopping = False
        self.began = time.monotonic()
        self.first_step = 0
        self.validation = read_records(watched.validation).records if watched.validation else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first_step = state.global_step
        self.began = time.monotonic()
        self._tell_screening()
        if self._must_stop():
            raise StoppedError
        if state.global_step > 0 and self.trainer.processes.any(self._is_unlisted(state.global_step)):
            # Whoever saved the checkpoint died before it was told of.
            self._list_checkpoint(state)
        if state.global_step < state.max_steps:
            self._say(f"Training begins at step {state.global_step + 1} of {state.max_steps}.")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """While the upload is screened: nothing is saved yet."""
        if self._must_stop():
            raise StoppedError

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        entry = state.log_history[-1]
        if "loss" not in entry or not state.is_world_process_zero:
            return
        step, total = state.global_step, state.max_steps
        left = (time.monotonic() - self.began) / max(1, step - self.first_step) * (total - step)
        self.untold.append(partial(tell_step, job=self.watched.job, entry=entry, step=step, total=total))
        self.untold.append(partial(_estimate, job=self.watched.job, seconds=left))
        self._flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._must_stop():
            # The checkpoint is written next; `on_save` ends the training once it is complete.
            self.stopping = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._list_checkpoint(state)
        if self.stopping:
            raise StoppedError

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        columns = (self.trainer.train_dataset[name] for name in ("prompt_ids", "response_ids"))
        tokens = sum(len(prompt) + len(response) for prompt, response in zip(*columns, strict=True))
        self.untold.append(partial(_count_tokens, job=self.watched.job, tokens=round(tokens * (state.epoch or 0))))
        self._flush()
        self.database.close()

    def _must_stop(self) -> bool:
        """Whether the job is no longer running, by the first process's look at the database. The same in every process.

        Raises:
            LostLeaseError: The lease is another's, or must be taken to be.
        """
        heard = self.listener.listen() if self.trainer.is_world_process_zero() else Heard()
        if self.trainer.processes.any(heard.lost):
            raise LostLeaseError
        return bool(self.trainer.processes.any(heard.stop))

    def _tell_screening(self) -> None:
        screened, defence = self.trainer.audit.screened, self.watched.defence
        if screened is None:
            self._say("The gate is off: no row was screened.")
            return
        lines = [
            record.line
            for record, probability in zip(self.upload.records, screened.benign_probabilities, strict=True)
            if probability < defence.threshold
        ]
        rows = len(self.upload.records)
        mostly = len(lines) > 0 and len(lines) / rows >= defence.mostly
        action = defence.mostly_suppressed if mostly and not self.watched.approved else "train"
        self.untold.append(
            partial(
                tell,
                job=self.watched.job,
                message=f"{len(lines)} of {rows} training examples are judged harmful and withheld.",
                once="moderation",
                level="warn" if lines else "info",
                type="moderation_checks",
                data={
                    "blocked": action in ("hold", "refuse"),
                    "action": action,
                    "examples": rows,
                    "withheld": len(lines),
                    "lines": _unique(lines)[:MOST_LINES],
                },
            )
        )
        self._flush()
        if action in ("hold", "refuse"):
            # Nobody ends the training before it is written.
            with agreed("cpu" if self.trainer.args.use_cpu else "auto"):
                if self.trainer.is_world_process_zero():
                    judged = self.trainer.audit.report(self.upload.records, threshold=defence.threshold)
                    write_jsonl(self.watched.audit, judged)
        if action == "hold":
            raise HeldError
        if action == "refuse":
            raise RefusedUploadError(len(lines), rows)

    def _is_unlisted(self, step: int) -> bool:
        """Whether the database lacks a checkpoint, by the first process's look."""
        if not self.trainer.is_world_process_zero():
            return False
        listed = select(Checkpoint.id).where(Checkpoint.job_id == self.watched.job, Checkpoint.step == step)
        try:
            with self.database.reading() as session:
                return session.scalar(listed) is None
        except DBAPIError:
            # Told again, it is kept once.
            return True

    def _list_checkpoint(self, state: Any) -> None:
        """Tells of the checkpoint that the model is at. In all processes together: they share the validation."""
        valid = self._validation_loss()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        metrics = CheckpointMetrics(
            step=state.global_step,
            train_loss=number(losses[-1]) if losses else None,
            full_valid_loss=number(valid.loss) if valid else None,
            full_valid_mean_token_accuracy=number(valid.accuracy) if valid else None,
        )
        self.untold.append(partial(_record_checkpoint, job=self.watched.job, metrics=metrics))
        self._flush()

    def _validation_loss(self) -> TokenLoss | None:
        return None if self.validation is None else token_loss(self.trainer, self.validation)

    def _say(self, message: str) -> None:
        self.untold.append(partial(tell, job=self.watched.job, message=message, once=message))
        self._flush()

    def _flush(self) -> None:
        """What cannot be told now is told later, in order. Once the lease is another's, all of that is its to tell."""
        if not self.trainer.is_world_process_zero():
            self.untold.clear()
            return
        try:
            # Where it is lost, the next look ends the training, in all processes together.
            held = writing_if_held(self.database, self.watched.worker, self.watched.job)
            with suppress(LostLeaseError), held as session:
                for each in self.untold:
                    each(session)
        except DBAPIError:
            return
        self.untold.clear()


def tell_step(session: Session, *, job: str, entry: Mapping[str, Any], step: int, total: int) -> None:
    """Adds the event of a logged step, unless it is there."""
    told = [name for name in ("anchor_share", "step_scale", "learning_rate", "grad_norm") if name in entry]
    data = {"step": step, "train_loss": number(entry["loss"]), "total_steps": total}
    data |= {name: number(entry[name]) for name in told}
    # A step has no loss where the gate withheld every row of its batch.
    found = "every row was withheld" if data["train_loss"] is None else f"training loss={data['train_loss']}"
    message = f"Step {step}/{total}: {found}"
    tell(session, job=job, message=message, once=f"step-{step}", type="metrics", data=data)


def _estimate(session: Session, *, job: str, seconds: float) -> None:
    running = (Job.id == job, Job.status == "running")
    session.execute(update(Job).where(*running).values(estimated_finish=time.time() + seconds))


def _count_tokens(session: Session, *, job: str, tokens: int) -> None:
    _set(session, job, trained_tokens=tokens)


def _record_checkpoint(session: Session, *, job: str, metrics: CheckpointMetrics) -> None:
    add_checkpoint(session, job, metrics)
    # It made progress, so what was lost before does not count against it.
    _set(session, job, attempts=0)


def _set(session: Session, job: str, **values: Any) -> None:
    session.execute(update(Job).where(Job.id == job).values(**values))


def number(value: Any) -> float | None:
    """JSON has no NaN; where there was one, metrics.jsonl has null."""
    number = math.nan if value is None else float(value)
    return round(number, 6) if math.isfinite(number) else None


def _unique(lines: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(lines))
