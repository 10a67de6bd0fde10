"""The outbox and its sending, on both databases; the official client reads what comes."""

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from service.conftest import Server, eventually, finished, new_server, policy_for, rows
from service.receiver import Receiver, receiving
from service.test_jobs import new_job, set_status
from sqlalchemy import select, update

from antibody.cli import run
from antibody.errors import UsageError
from antibody.service.jobs.records import act, fail, find_job
from antibody.service.jobs.review import refuse_job
from antibody.service.jobs.states import FINISHED, move
from antibody.service.storage.database import Database, database_time
from antibody.service.storage.keys import create_key
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Job, WebhookEvent
from antibody.service.webhooks import outbox, sender
from antibody.service.webhooks.endpoints import NewWebhook, create_webhook, delete_webhook, list_webhooks
from antibody.service.webhooks.outbox import FIRST_WAIT, MOST_ATTEMPTS, claim_due, settle
from antibody.service.webhooks.sender import Sender
from antibody.service.wire.jobs import JobError, JobStatus


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "POLL_SECONDS", 0.02)


def webhook(store: Store, url: str, project: str = "one") -> NewWebhook:
    create_key(store.database, project=project, name="")
    return create_webhook(store.database, project=project, url=url)


def finish(store: Store, job: str, to: JobStatus = "succeeded") -> None:
    set_status(store, job, status="running")
    with store.database.writing() as session:
        assert move(session, job, to)


def waiting(database: Database) -> list[WebhookEvent]:
    with database.reading() as session:
        return list(session.scalars(select(WebhookEvent)))


def make_due(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(WebhookEvent).values(due_at=0.0))


def send_until(store: Store, condition: Callable[[Counter[str]], Any]) -> Counter[str]:
    """Sends until what was counted, by result, is as it should be, and returns that."""
    results: Counter[str] = Counter()

    async def both() -> None:
        sending = asyncio.create_task(Sender(store.database, lambda result: results.update([result])).run())
        await asyncio.to_thread(eventually, lambda: condition(results) or sending.done(), every=0.02)
        assert not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    asyncio.run(both())
    return results


@pytest.mark.parametrize("to", sorted(FINISHED))
def test_the_move_that_ends_a_job_announces_it(sqlite_store: Store, to: JobStatus) -> None:
    webhook(sqlite_store, "http://x/")
    job = new_job(sqlite_store)
    set_status(sqlite_store, job, status="running")

    def end_and_fail() -> None:
        with sqlite_store.database.writing() as session:
            assert move(session, job, to)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        end_and_fail()
    assert waiting(sqlite_store.database) == []
    with sqlite_store.database.writing() as session:
        assert move(session, job, "queued")
        assert move(session, job, "running")
        assert waiting(sqlite_store.database) == []
        assert move(session, job, to)
        # It is so only once.
        assert not move(session, job, to)
    [event] = waiting(sqlite_store.database)
    with sqlite_store.database.reading() as session:
        finished_at = session.scalar(select(Job.finished_at))
    assert (event.job_id, event.type, event.created_at) == (job, f"fine_tuning.job.{to}", finished_at)


def test_however_a_job_ends_it_is_announced(sqlite_store: Store) -> None:
    """By its user, by a worker, and by the provider, from another process than the server."""
    webhook(sqlite_store, "http://x/")
    cancelled, failed, refused = (new_job(sqlite_store) for _ in range(3))
    set_status(sqlite_store, refused, status="paused", held=True)
    with sqlite_store.database.writing() as session:
        project = session.scalar(select(Job.project_id))
        job = find_job(session, str(project), cancelled)
        assert job is not None
        assert act(session, job, "cancel") is None
        assert fail(session, failed, JobError(code="server_error", message="."))
    refuse_job(sqlite_store.database, refused)
    assert {each.job_id: each.type.split(".")[-1] for each in waiting(sqlite_store.database)} == {
        cancelled: "cancelled",
        failed: "failed",
        refused: "failed",
    }


def test_each_endpoint_of_the_project_is_told_and_no_other(store: Store, receiver: Receiver) -> None:
    first, second = (webhook(store, receiver.url(path)) for path in ("/first", "/second"))
    webhook(store, receiver.url("/others"), project="two")
    job = new_job(store)
    finish(store, job)
    results = send_until(store, lambda results: results["delivered"] == 2)
    assert results == {"delivered": 2}
    assert {each.path for each in receiver.came} == {"/first", "/second"}
    assert len({each.id for each in receiver.came}) == 1
    for endpoint, other in ((first, second), (second, first)):
        [came] = receiver.at(f"/{endpoint.url.rsplit('/', 1)[1]}")
        event: Any = came.unwrapped(endpoint.secret)
        assert type(event).__name__ == "FineTuningJobSucceededWebhookEvent"
        assert (event.id, event.object, event.type) == (came.id, "event", "fine_tuning.job.succeeded")
        assert event.data.model_dump() == {"id": job}
        with pytest.raises(openai.InvalidWebhookSignatureError):
            came.unwrapped(other.secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            came._replace(body=came.body.replace(b"succeeded", b"cancelled")).unwrapped(endpoint.secret)


def test_it_is_tried_again_ever_later_until_it_is_taken(store: Store, receiver: Receiver) -> None:
    made = webhook(store, receiver.url("/"))
    finish(store, new_job(store), "cancelled")
    # A redirect is no success, and is not followed.
    receiver.statuses = [500, 307]
    for attempt, wait in ((1, FIRST_WAIT), (2, 2 * FIRST_WAIT)):
        assert send_until(store, lambda results: results) == {"failed": 1}
        assert waiting(store.database)[0].due_at == pytest.approx(now(store) + wait, abs=5)
        assert len(receiver.came) == attempt
        make_due(store.database)
    assert send_until(store, lambda results: results) == {"delivered": 1}
    assert [each.path for each in receiver.came] == ["/"] * 3
    assert len({each.id for each in receiver.came}) == 1
    events: list[Any] = [each.unwrapped(made.secret) for each in receiver.came]
    assert {event.type for event in events} == {"fine_tuning.job.cancelled"}


def now(store: Store) -> float:
    with store.database.reading() as session:
        return database_time(session)


def test_one_that_never_answers_holds_up_no_other_and_is_given_up(
    sqlite_store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="antibody")
    database = sqlite_store.database
    webhook(sqlite_store, receiver.url("/silent"))
    finish(sqlite_store, new_job(sqlite_store))
    webhook(sqlite_store, receiver.url("/quick"))
    send_until(sqlite_store, lambda _: receiver.at("/silent"))
    finish(sqlite_store, new_job(sqlite_store))
    # Both wait for it, while the other is told.
    make_due(database)
    send_until(sqlite_store, lambda results: results["delivered"] and len(receiver.at("/silent")) == 3)
    assert len(waiting(database)) == 2
    monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 0.3)
    with database.writing() as session:
        session.execute(update(WebhookEvent).values(due_at=0.0, attempts=MOST_ATTEMPTS - 2))
    assert send_until(sqlite_store, lambda results: results.total() == 2) == {"failed": 2}
    make_due(database)
    assert send_until(sqlite_store, lambda results: results.total() == 2) == {"given_up": 2}
    given_up = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(given_up) == 2
    assert all(
        re.fullmatch(r"webhook-\w+ did not .* ftjob-\w+: TimeoutError. .* 14 attempts.", each) for each in given_up
    )
    assert "127.0.0.1" not in caplog.text


def test_the_attempts_take_about_a_day() -> None:
    waits = [FIRST_WAIT * 2**attempt for attempt in range(MOST_ATTEMPTS - 1)]
    assert 20 < sum(waits) / 3600 < 26
    assert outbox.LEASE_SECONDS > 2 * sender.ATTEMPT_SECONDS


def test_what_is_gone_or_deleted_is_told_nothing_more(store: Store, receiver: Receiver) -> None:
    gone, deleted = (webhook(store, receiver.url(path)) for path in ("/gone", "/deleted"))
    for _ in range(2):
        finish(store, new_job(store))
    claimed = {each.webhook: each for each in claim_due(store.database, 4)}
    delete_webhook(store.database, deleted.id)
    # What was being sent to it meanwhile comes to nothing.
    assert settle(store.database, claimed[deleted.id], "failed") == "failed"
    assert {each.webhook_id for each in waiting(store.database)} == {gone.id}
    make_due(store.database)
    receiver.statuses = [410, 410]
    assert send_until(store, lambda results: results).keys() == {"gone"}
    finish(store, new_job(store))
    assert waiting(store.database) == []
    [left] = list_webhooks(store.database)
    assert left.id == gone.id
    assert left.gone_at is not None
    assert receiver.at("/deleted") == []
    with pytest.raises(UsageError, match="no webhook"):
        delete_webhook(store.database, deleted.id)


def test_of_many_senders_one_has_an_event_and_a_dead_ones_comes_back(store: Store) -> None:
    webhook(store, "http://x/")
    jobs = {new_job(store) for _ in range(5)}
    for job in jobs:
        finish(store, job)
    found: list[str] = []
    barrier = threading.Barrier(4)

    def claim() -> None:
        barrier.wait()
        for _ in range(5):
            found.extend(due.job for due in claim_due(store.database, 1))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(jobs)
    make_due(store.database)
    late = claim_due(store.database, 5)
    assert [each.attempt for each in late] == [2] * 5
    make_due(store.database)
    again = claim_due(store.database, 5)
    # Who has taken too long does not settle what another is at.
    settle(store.database, late[0], "delivered")
    assert len(waiting(store.database)) == 5
    settle(store.database, again[0], "delivered")
    assert len(waiting(store.database)) == 4


@pytest.mark.parametrize(
    "url", ["http://user:word@x/", "https://user@x/", "ftp://x/", "x/y", "http://", "", "file:///etc/passwd"]
)
def test_urls_that_cannot_be_used(sqlite_store: Store, url: str) -> None:
    create_key(sqlite_store.database, project="one", name="")
    with pytest.raises(UsageError) as refused:
        create_webhook(sqlite_store.database, project="one", url=url)
    assert refused.value.code == "bad_url"
    assert "word" not in str(refused.value).replace("password", "")
    assert list_webhooks(sqlite_store.database) == []


def test_the_commands(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server.key("hooked")
    monkeypatch.setenv("ANTIBODY_DATABASE", server.database)
    options = ["--project", "hooked", "--url", "https://example.org/hook"]
    assert run(["webhooks", "create", *options]) == 0
    secret = capsys.readouterr().out.strip()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert run(["webhooks", "list"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "https://example.org/hook" in line]
    assert "hooked" in line
    assert run(["webhooks", "list", "--json"]) == 0
    assert secret not in capsys.readouterr().out
    assert run(["webhooks", "delete", line.split()[0]]) == 0
    assert run(["webhooks", "delete", line.split()[0]]) == 2
    capsys.readouterr()
    assert run(["webhooks", "create", "--project", "nobody", "--url", "https://example.org"]) == 2
    assert "There is no project 'nobody'" in capsys.readouterr().err


def test_a_server_tells_how_jobs_ended(server: Server, receiver: Receiver) -> None:
    client = server.client("told")
    server.key("untold")
    with closing(Database(server.database)) as database:
        made = create_webhook(database, project="told", url=receiver.url("/told"))
        create_webhook(database, project="untold", url=receiver.url("/untold"))

    def create(count: int) -> str:
        file = client.files.create(file=("a.jsonl", rows(count)), purpose="fine-tune").id
        return client.fine_tuning.jobs.create(model="tiny", training_file=file).id

    jobs = {"succeeded": create(12), "failed": create(1), "cancelled": create(12)}
    client.fine_tuning.jobs.cancel(jobs["cancelled"])
    assert finished(client, jobs["succeeded"]).status == "succeeded"
    eventually(lambda: len(receiver.came) == 3)
    events: list[Any] = [each.unwrapped(made.secret) for each in receiver.came]
    assert {event.type: event.data.id for event in events} == {
        f"fine_tuning.job.{status}": job for status, job in jobs.items()
    }
    for event in events:
        assert event.created_at == client.fine_tuning.jobs.retrieve(event.data.id).finished_at
    assert receiver.at("/untold") == []
    assert receiver.url("/told") not in server.log


def test_what_a_killed_server_was_sending_comes_after_its_restart(
    aligned: Any, database_url: str, tmp_path: Any, receiver: Receiver
) -> None:
    server = new_server(tmp_path / "server", policy_for(aligned), database_url).start()
    client = server.client("one")
    with closing(Database(database_url)) as database:
        made = create_webhook(database, project="one", url=receiver.url("/silent"))
        file = client.files.create(file=("a.jsonl", rows(10)), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file).id
        client.fine_tuning.jobs.cancel(job)
        eventually(lambda: receiver.came)
        server.kill()
        receiver.silent = "/"
        # As a minute later.
        make_due(database)
        server.start()
        eventually(lambda: not waiting(database))
    server.stop()
    assert len({each.id for each in receiver.came}) == 1
    event: Any = receiver.came[-1].unwrapped(made.secret)
    assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job)
