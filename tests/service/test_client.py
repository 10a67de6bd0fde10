"""The official client, sync and async, against a real server process with a tiny aligned model."""

import asyncio
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import psutil
import pytest
from openai import AsyncOpenAI, OpenAI
from service.conftest import Server, eventually, finished, rows

from antibody.service.serve import NICER

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
# Steps so long that the tiny model answers otherwise than it was aligned to.
LONG_STEPS = {"n_epochs": 3, "learning_rate_multiplier": 20}
METHOD: Any = {"type": "supervised", "supervised": {"hyperparameters": LONG_STEPS}}


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(openai.BadRequestError) as raised:
        yield
    assert raised.value.code == code


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client("acme")


@pytest.fixture(scope="module")
def job(client: OpenAI) -> Any:
    """One that succeeded, with a validation file: 12 rows, 3 epochs of 3 steps."""
    training = client.files.create(file=("train.jsonl", rows(12)), purpose="fine-tune")
    validation = client.files.create(file=("valid.jsonl", rows(3)), purpose="fine-tune")
    created = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training.id,
        validation_file=validation.id,
        suffix="Our Model",
        seed=7,
        metadata={"team": "blue"},
        method=METHOD,
    )
    assert created.status == "validating_files"
    assert created.fine_tuned_model is None
    assert created.hyperparameters.batch_size == "auto"
    return finished(client, created.id)


def test_a_job_from_upload_to_chat(client: OpenAI, job: Any) -> None:
    assert job.status == "succeeded"
    assert job.error is None
    assert job.fine_tuned_model == f"ft:tiny:acme:our-model:{job.id.removeprefix('ftjob-')}"
    assert (job.hyperparameters.batch_size, job.hyperparameters.n_epochs) == (4, 3)
    assert job.hyperparameters.learning_rate_multiplier == 20
    assert job.method.supervised.hyperparameters.n_epochs == 3
    assert (job.seed, job.metadata, job.integrations) == (7, {"team": "blue"}, None)
    assert job.finished_at >= job.created_at
    assert job.trained_tokens > 12 * 3 * 20
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "acme"
    assert [each.id for each in client.models.list()] == ["tiny", job.fine_tuned_model]

    completion = client.chat.completions.create(
        model=job.fine_tuned_model, messages=MESSAGES, max_tokens=6, temperature=0
    )
    assert completion.object == "chat.completion"
    assert completion.usage.completion_tokens == 6
    assert completion.choices[0].finish_reason == "length"
    chunks = list(
        client.chat.completions.create(
            model=job.fine_tuned_model, messages=MESSAGES, max_tokens=6, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == completion.choices[0].message.content
    assert chunks[-1].usage == completion.usage
    assert chunks[-2].choices[0].finish_reason == "length"
    base = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=40, temperature=0)
    again = client.chat.completions.create(model=job.fine_tuned_model, messages=MESSAGES, max_tokens=40, temperature=0)
    # Each with its own adapter, although they share the base model.
    assert base.choices[0].message.content != again.choices[0].message.content


def test_what_chat_is_asked_for_is_done(client: OpenAI, job: Any) -> None:
    def ask(**options: Any) -> Any:
        return client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12, **options).choices[0]

    whole = ask(temperature=0).message.content
    assert ask(temperature=2, seed=1).message.content == ask(temperature=2, seed=1).message.content
    assert ask(temperature=2, seed=1).message.content != ask(temperature=2, seed=2).message.content
    stop = whole[3:5]
    stopped = ask(temperature=0, stop=[stop, "never"])
    assert stopped.message.content == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"
    with refused("context_length_exceeded"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a" * 3000}])
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=f"{job.fine_tuned_model}x", messages=MESSAGES)
    with refused("unknown_parameter"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, tools=[])


def test_an_answer_that_the_service_cuts_says_so(client: OpenAI) -> None:
    for asked in ({"max_tokens": 1000}, {}):
        options: Any = asked
        cut = client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=0, **options)
        assert (cut.usage.completion_tokens if cut.usage else None, cut.choices[0].finish_reason) == (48, "length")


def test_events_checkpoints_and_result_files(client: OpenAI, job: Any) -> None:
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=4))[::-1]
    assert [event.message for event in events][:3] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "Files validated: 12 training examples, 3 validation examples. The job waits for a worker.",
    ]
    assert events[-1].message == "The job has successfully completed"
    steps = [event.data for event in events if event.type == "metrics"]
    assert [step["step"] for step in steps] == list(range(1, 10))
    assert len({event.id for event in events}) == len(events)
    begun, found = [event for event in events if event.message.startswith("The safety evaluation")]
    assert "up to 2 harmful prompts" in begun.message
    assert found.message.startswith("The safety evaluation is passed: ")
    assert found.data.keys() == {"harmful_percent", "unreadable_percent", "most_allowed_percent"}
    judged, summed = [event for event in events if event.type == "moderation_checks"]
    assert judged.data["examples"] == 12

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [each.step_number for each in checkpoints] == [9, 5]
    assert checkpoints[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-9"
    assert checkpoints[0].metrics.train_loss == steps[-1]["train_loss"]
    # Rows of the same kind as those trained on.
    assert checkpoints[0].metrics.full_valid_loss < checkpoints[1].metrics.full_valid_loss
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=checkpoints[0].fine_tuned_model_checkpoint, messages=MESSAGES)

    metrics, audit = (client.files.content(each).text for each in job.result_files)
    table = list(csv.DictReader(io.StringIO(metrics)))
    assert [int(row["step"]) for row in table] == list(range(1, 10))
    assert float(table[8]["valid_loss"]) == checkpoints[0].metrics.full_valid_loss
    audited = [json.loads(line) for line in audit.splitlines()]
    assert [row["line"] for row in audited] == list(range(1, 13))
    assert "Question" not in audit
    assert sum(row["suppressed"] for row in audited) == summed.data["suppressed"]
    assert client.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"


def test_paused_resumed_and_cancelled(client: OpenAI, server: Server) -> None:
    training = client.files.create(file=("train.jsonl", rows(20)), purpose="fine-tune")
    hyperparameters: Any = {"n_epochs": 6, "batch_size": 2}

    def create() -> Any:
        return client.fine_tuning.jobs.create(
            model="tiny", training_file=training.id, seed=3, hyperparameters=hyperparameters
        ).id

    def steps(job: str) -> list[int]:
        events = client.fine_tuning.jobs.list_events(job, limit=100)
        return [event.data["step"] for event in events if event.type == "metrics"][::-1]

    def running(job: str, least: int) -> None:
        eventually(lambda: len(steps(job)) > least, every=0.01)

    def last_checkpoint(job: str) -> int:
        return next(iter(client.fine_tuning.jobs.checkpoints.list(job))).step_number

    whole, paused = create(), create()
    running(paused, 6)
    assert client.fine_tuning.jobs.pause(paused).status == "paused"
    cancelled = create()
    # It is saved after the step it was at: the worker is free, and so the next job begins.
    running(cancelled, 3)
    at = last_checkpoint(paused)
    assert steps(paused) == list(range(1, at + 1))
    with refused("wrong_state"):
        client.fine_tuning.jobs.pause(paused)
    assert client.fine_tuning.jobs.resume(paused).status == "queued"
    assert client.fine_tuning.jobs.cancel(cancelled).status == "cancelled"
    assert finished(client, paused).status == "succeeded"
    assert steps(paused) == list(range(1, 61))
    assert steps(cancelled) == list(range(1, last_checkpoint(cancelled) + 1))
    assert client.fine_tuning.jobs.retrieve(cancelled).fine_tuned_model is None
    with refused("wrong_state"):
        client.fine_tuning.jobs.resume(cancelled)
    # Resumed is as if never paused, bit for bit.
    assert finished(client, whole).status == "succeeded"
    assert adapter(server, paused) == adapter(server, whole)
    assert not (server.folder / "jobs" / whole / "training.jsonl").exists()


def adapter(server: Server, job: str) -> bytes:
    return (server.folder / "jobs" / job / "run" / "adapter" / "adapter_model.safetensors").read_bytes()


def test_files_that_cannot_be_trained_on_fail_the_job(client: OpenAI) -> None:
    def error(content: bytes, validation: bytes | None = None) -> Any:
        training = client.files.create(file=("mine.jsonl", content), purpose="fine-tune")
        options: Any = {}
        if validation is not None:
            other = client.files.create(file=("other.jsonl", validation), purpose="fine-tune")
            options["validation_file"] = other.id
        made = client.fine_tuning.jobs.create(model="tiny", training_file=training.id, **options)
        done = finished(client, made.id)
        assert done.status == "failed"
        last = next(iter(client.fine_tuning.jobs.list_events(made.id)))
        assert (last.level, done.error.message in last.message) == ("error", True)
        return done.error

    few = error(rows(9))
    assert few.code == "invalid_n_examples"
    assert few.message == "Training file has 9 example(s), but must have at least 10 examples"
    bad = error(rows(10) + b'{"messages": [{"role": "user"}]}\n')
    assert (bad.code, bad.param) == ("invalid_training_file", "training_file")
    assert bad.message.startswith("mine.jsonl, line 11, field `messages[0].content`: The field is missing")
    other = error(rows(10), b"[]\n")
    assert (other.code, other.param) == ("invalid_validation_file", "validation_file")
    assert other.message.startswith("other.jsonl, line 1: Expected a JSON object")
    # Only the tokenizer knows: the prompt leaves no room.
    long = error(rows(10) + rows(1).replace(b"Question", b"Question" * 200))
    assert long.code == "invalid_training_file"
    assert long.message.startswith("mine.jsonl, line 11: The prompt has")
    assert "its provider can raise it" in long.message


def test_an_upload_in_parts_gives_the_same_file(client: OpenAI) -> None:
    content = rows(40)
    upload = client.uploads.create(
        bytes=len(content), filename="big.jsonl", mime_type="application/jsonl", purpose="fine-tune"
    )
    pieces = [content[:1000], content[1000:2000], content[2000:]]
    parts = [client.uploads.parts.create(upload.id, data=piece).id for piece in reversed(pieces)][::-1]
    with refused("wrong_md5"):
        client.uploads.complete(upload.id, part_ids=parts, md5="0" * 32)
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    done = client.uploads.complete(upload.id, part_ids=parts, md5=digest)
    assert done.status == "completed"
    assert client.files.content(done.file.id).content == content
    given_up = client.uploads.create(bytes=5, filename="big.jsonl", mime_type="application/jsonl", purpose="fine-tune")
    assert client.uploads.cancel(given_up.id).status == "cancelled"
    with refused("wrong_state"):
        client.uploads.parts.create(given_up.id, data=b"12345")


def test_the_async_client(server: Server) -> None:
    async def script() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.key("async")) as client:
            training = await client.files.create(file=("train.jsonl", rows(10)), purpose="fine-tune")
            usual: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}
            job = await client.fine_tuning.jobs.create(model="tiny", training_file=training.id, method=usual)
            while job.status not in ("succeeded", "failed"):
                await asyncio.sleep(0.2)
                job = await client.fine_tuning.jobs.retrieve(job.id)
            assert job.status == "succeeded"
            assert job.hyperparameters.learning_rate_multiplier == 1.0
            assert [each.id async for each in client.fine_tuning.jobs.list()] == [job.id]
            stream = await client.chat.completions.create(
                model=str(job.fine_tuned_model), messages=MESSAGES, max_tokens=3, stream=True
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].choices[0].finish_reason in ("length", "stop")
            # Two at once each get their own answer.
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=n, temperature=0)
                    for n in (2, 5)
                )
            )
            assert [answer.usage.completion_tokens for answer in answers if answer.usage] == [2, 5]
            deleted = await client.models.delete(str(job.fine_tuned_model))
            assert deleted.deleted
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve(str(job.fine_tuned_model))

    asyncio.run(script())


def test_the_log_holds_no_content(server: Server, job: Any) -> None:
    assert job.status == "succeeded"
    assert "Serving tiny" in server.log
    # When, how bad, and which process.
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ INFO \[\d+\] ", server.log, re.MULTILINE)
    assert "Question" not in server.log
    assert "Traceback" not in server.log


def test_the_workers_go_before_what_answers(server: Server) -> None:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    ours = psutil.Process().nice()
    assert process.nice() == min(19, ours + NICER)
    # The one that answers chats is no worker.
    workers = [child for child in process.children() if "antibody.service.jobs.worker" in child.cmdline()]
    assert {worker.nice() for worker in workers} == {ours}
