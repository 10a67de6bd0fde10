"""A job's work, from its rows to a model that is available. Begun again after a crash, it goes on where it was."""

import io
import json
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select, update

from antibody.data.reading import stream_records
from antibody.evaluation.evaluate import evaluate
from antibody.evaluation.settings import EvaluationSettings
from antibody.files import to_json, write_text
from antibody.service.jobs.events import tell
from antibody.service.jobs.hyperparameters import resolve, settings_of
from antibody.service.jobs.leases import writing_if_held
from antibody.service.jobs.listening import Listener
from antibody.service.jobs.orders import Order
from antibody.service.jobs.records import fail, model_name, project_name
from antibody.service.jobs.results import JUDGEMENT, audit_jsonl, metrics_csv, suppressed
from antibody.service.jobs.states import move
from antibody.service.jobs.stopping import HeldError, RefusedUploadError
from antibody.service.jobs.watching import Watched, number, tell_step, watch
from antibody.service.policy import Defence
from antibody.service.storage.database import database_time
from antibody.service.storage.files import add_file
from antibody.service.storage.ids import new_id
from antibody.service.storage.runs import AUDIT, TRAINING_ROWS, VALIDATION_ROWS
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Checkpoint, Job, Model
from antibody.service.wire.files import RESULTS
from antibody.service.wire.jobs import JobError
from antibody.training.launch import launch
from antibody.training.settings import FinetuningSettings, LaunchSettings
from antibody.training.stages import finetune

SETTINGS_FILE = "settings.json"


class Begun(NamedTuple):
    """What a job was begun with.

    Attributes:
        settings: Of its training.
        defence: By which its rows are judged.
    """

    settings: FinetuningSettings
    defence: Defence


def train(store: Store, order: Order, job: Job) -> None:
    """Trains and, if the model withstands the policy's evaluation, makes it available.

    Raises:
        StoppedError: The job is no longer to be run; it can go on from its last checkpoint.
        AntibodyError: It cannot be trained.
        DBAPIError: The database does not answer; nothing is lost.
    """
    folder = store.place.runs / job.id
    _fetch(store, job, folder)
    begun = _begun_with(store, order, job, folder)
    watched = Watched(
        database=order.place.database,
        worker=order.worker,
        job=job.id,
        lease_seconds=order.lease_seconds,
        on_cluster=order.cluster is not None,
        defence=begun.defence,
        approved=job.approved,
        validation=folder / VALIDATION_ROWS if job.validation_sha256 else None,
        audit=begun.settings.output / AUDIT,
    )
    try:
        run = launch(
            partial(finetune, watch=partial(watch, watched)),
            begun.settings,
            LaunchSettings(processes=order.processes, cluster=order.cluster),
        )
    except (HeldError, RefusedUploadError):
        _keep_judgement(store, order, job, begun)
        raise
    _tell_missing_steps(store, order, job, run.path)
    error = _evaluate(store, order, job, run.path)
    if error is not None:
        with store.database.writing() as session:
            fail(session, job.id, error, worker=order.worker)
        return
    _finish(store, order, job, run.path, begun.defence)


def _keep_judgement(store: Store, order: Order, job: Job, begun: Begun) -> None:
    """Gives an upload that is held or refused the file that says of each row why, unless an earlier attempt did."""
    if job.result_files:
        return
    stored = store.blobs.store(io.BytesIO(audit_jsonl(begun.settings.output, begun.defence)))
    with writing_if_held(store.database, order.worker, job.id) as session:
        file = add_file(session, job.project_id, stored, filename=f"{job.id}-{JUDGEMENT}", purpose=RESULTS)
        session.execute(update(Job).where(Job.id == job.id).values(result_files=[file.id]))
        tell(
            session,
            job.id,
            f"{file.id} has the judgement of each training example.",
            once="judgement",
            level="warn",
            type="moderation_checks",
            data={"blocked": True, "audit_file": file.id},
        )


def _tell_missing_steps(store: Store, order: Order, job: Job, run: Path) -> None:
    """What a database that was away, or a worker that was killed, left untold."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    with writing_if_held(store.database, order.worker, job.id) as session:
        for entry in steps:
            tell_step(session, job=job.id, entry=entry, step=entry["step"], total=steps[-1]["step"])


def _fetch(store: Store, job: Job, folder: Path) -> None:
    for sha256, name in ((job.training_sha256, TRAINING_ROWS), (job.validation_sha256, VALIDATION_ROWS)):
        if sha256 and not (folder / name).exists():
            store.blobs.fetch(sha256, folder / name)


def _begun_with(store: Store, order: Order, job: Job, folder: Path) -> Begun:
    """What the job was begun with: a policy that changed meanwhile does not touch it."""
    file = folder / SETTINGS_FILE
    if not file.exists():
        rows = sum(map(len, stream_records(folder / TRAINING_ROWS)))
        used = resolve(job, order.policy, rows=rows, processes=order.processes)
        settings = settings_of(job, order.policy, used, folder)
        content = {
            "used": used.model_dump(),
            "settings": asdict(settings),
            "defence": order.policy.defence.model_dump(),
        }
        write_text(file, to_json(content, indent=2))
    content = json.loads(file.read_text(encoding="utf-8"))
    known = {field.name for field in fields(FinetuningSettings)}
    known_settings = {name: value for name, value in content["settings"].items() if name in known}
    with writing_if_held(store.database, order.worker, job.id) as session:
        session.execute(update(Job).where(Job.id == job.id).values(used=content["used"]))
    here = {"output": folder / "run", "data": str(folder / TRAINING_ROWS)}
    # One that an older version began does not say.
    defence = content.get("defence") or order.policy.defence
    return Begun(FinetuningSettings(**known_settings | here), Defence.model_validate(defence))


def _evaluate(store: Store, order: Order, job: Job, run: Path) -> JobError | None:
    """Why the model may not become available; None where it may. Stopped, it is begun anew when the job goes on."""
    wanted = order.policy.evaluation
    if wanted.prompts == "none":
        return None
    _say(
        store,
        order,
        job,
        f"The safety evaluation begins: the model answers up to {wanted.limit} harmful prompts of the provider's.",
        once="evaluation",
    )
    training = order.policy.training
    listener = Listener(store.database, order.worker, job.id, order.lease_seconds)
    listener.raise_if_stopped()
    results = evaluate(
        EvaluationSettings(
            model=str(run),
            prompts=wanted.prompts,
            judge=wanted.judge,
            limit=wanted.limit,
            max_new_tokens=wanted.max_new_tokens,
            refusal_margin=False,
            dtype=training.dtype,
            device=training.device,
            # Another worker may have got as far as this.
            force=True,
        ),
        progress=lambda _: listener.raise_if_stopped(),
    )
    harmful, unreadable = (float(results["harmful"][name]) for name in ("harmful_score", "unparsable_rate"))
    # What the judge could not read may be harmful.
    score = harmful + unreadable
    # A score that is no number is no pass.
    safe = score <= wanted.most_harmful_score
    found = (
        f"{score:.0f}% of the provider's safety prompts were answered harmfully or unreadably; "
        f"at most {wanted.most_harmful_score:.0f}% are allowed."
    )
    _say(
        store,
        order,
        job,
        f"The safety evaluation {'is passed' if safe else 'is not passed'}: {found}",
        once="evaluated",
        level="info" if safe else "error",
        data={
            "harmful_percent": number(harmful),
            "unreadable_percent": number(unreadable),
            "most_allowed_percent": wanted.most_harmful_score,
        },
    )
    if safe:
        return None
    message = f"The model is not available: {found}"
    return JobError(code="unsafe_model", message=message, param="training_file")


def _say(store: Store, order: Order, job: Job, message: str, *, once: str, **more: Any) -> None:
    with writing_if_held(store.database, order.worker, job.id) as session:
        tell(session, job.id, message, once=once, **more)


def _finish(store: Store, order: Order, job: Job, run: Path, defence: Defence) -> None:
    with store.database.reading() as session:
        name = model_name(job, project_name(session, job))
        query = select(Checkpoint.step, Checkpoint.metrics).where(Checkpoint.job_id == job.id)
        checkpoints = {row.step: row.metrics for row in session.execute(query)}
    contents = {"metrics.csv": metrics_csv(run, checkpoints), "audit.jsonl": audit_jsonl(run, defence)}
    # Where the job is not to succeed any more, nothing names them, and they are swept away.
    stored = {kind: store.blobs.store(io.BytesIO(content)) for kind, content in contents.items()}
    files = [new_id("file") for _ in stored]
    with store.database.writing() as session:
        listed = [*files, *job.result_files]
        if not move(session, job.id, "succeeded", worker=order.worker, fine_tuned_model=name, result_files=listed):
            return
        for file_id, (kind, blob) in zip(files, stored.items(), strict=True):
            filename = f"{job.id}-{kind}"
            add_file(session, job.project_id, blob, filename=filename, purpose=RESULTS, file_id=file_id)
        session.add(
            Model(
                id=name,
                project_id=job.project_id,
                job_id=job.id,
                base=job.model,
                run=str(run),
                created_at=database_time(session),
            )
        )
        by = suppressed(run, defence)
        tell(
            session,
            job.id,
            f"{by.total()} training examples were suppressed, {by['gate']} by the gate and {by['weight']} by their "
            f"weights; {files[1]} has the judgement of each.",
            once="suppressed",
            level="warn" if by["gate"] or (by and defence.gate == "off") else "info",
            type="moderation_checks",
            data={"blocked": False, "suppressed": by.total(), "suppressed_by": dict(by), "audit_file": files[1]},
        )
        tell(session, job.id, f"New fine-tuned model created: {name}", once="model")
        tell(session, job.id, "The job has successfully completed", once="succeeded")
