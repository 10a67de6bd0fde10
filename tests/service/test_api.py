"""The routes without workers: what is accepted, what is refused and how, lists, quotas, and limits."""

import errno
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
from service.conftest import Api, rows, upload
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from antibody.service.api.gate import Gate
from antibody.service.jobs.records import create_job
from antibody.service.policy import Limits

USER = [{"role": "user", "content": "a"}]


def error(answer: Any, status: int, code: str, param: str | None = None) -> str:
    """The message of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()["error"]
    assert (content["code"], content["param"]) == (code, param)
    assert content.keys() == {"message", "type", "param", "code"}
    message: str = content["message"]
    return message


WRONG_JOBS: dict[str, tuple[dict[str, Any], str, str]] = {
    "dpo": ({"method": {"type": "dpo"}}, "unsupported_method", "method.type"),
    "reinforcement": ({"method": {"type": "reinforcement"}}, "unsupported_method", "method.type"),
    "method": ({"method": {"type": "magic"}}, "invalid_value", "method.type"),
    "epochs": ({"hyperparameters": {"n_epochs": 51}}, "invalid_value", "hyperparameters.n_epochs"),
    "batch": ({"hyperparameters": {"batch_size": 257}}, "invalid_value", "hyperparameters.batch_size"),
    "rate": (
        {"hyperparameters": {"learning_rate_multiplier": 0}},
        "invalid_value",
        "hyperparameters.learning_rate_multiplier",
    ),
    "twice": (
        {"hyperparameters": {}, "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}},
        "invalid_value",
        "hyperparameters",
    ),
    "suffix": ({"suffix": "a" * 65}, "invalid_value", "suffix"),
    "seed": ({"seed": 2**31}, "invalid_value", "seed"),
    "metadata": ({"metadata": {str(i): "" for i in range(17)}}, "invalid_value", "metadata"),
    "long key": ({"metadata": {"k" * 65: ""}}, "invalid_value", "metadata"),
    "long value": ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata"),
    "integrations": ({"integrations": [{"type": "wandb"}]}, "unsupported", "integrations"),
    "unknown": ({"colour": "red"}, "unknown_parameter", "colour"),
    "fine-tuned": ({"model": "ft:tiny:x::y"}, "invalid_model", "model"),
    "path": ({"training_file": "../../etc/passwd"}, "invalid_value", "training_file"),
}


@pytest.mark.parametrize("name", WRONG_JOBS)
def test_jobs_that_are_refused(name: str, make_api: Callable[..., Api]) -> None:
    client = make_api().client("one")
    body, code, param = WRONG_JOBS[name]
    request = {"model": "tiny", "training_file": upload(client)} | body
    assert error(client.post("/v1/fine_tuning/jobs", json=request), 400, code, param)
    assert client.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_a_job_of_nothing(make_api: Callable[..., Api]) -> None:
    client = make_api().client("one")
    error(client.post("/v1/fine_tuning/jobs", json={"model": "tiny"}), 400, "invalid_value", "training_file")
    error(
        client.post("/v1/fine_tuning/jobs", content=b"{", headers={"content-type": "application/json"}),
        400,
        "invalid_json",
    )
    error(
        client.post("/v1/fine_tuning/jobs", json={"model": "gpt", "training_file": upload(client)}),
        404,
        "model_not_found",
        "model",
    )
    error(
        client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": "file-x"}),
        404,
        "file_not_found",
        "training_file",
    )
    error(client.get("/v1/nothing"), 404, "invalid_request")
    error(client.put("/v1/files"), 405, "invalid_request")


def test_files_that_are_refused_and_names_that_are_made_safe(make_api: Callable[..., Api]) -> None:
    client = make_api().client("one")

    def send(name: str, **data: str) -> Any:
        return client.post("/v1/files", files={"file": (name, b"{}")}, data={"purpose": "fine-tune"} | data)

    error(send("a.csv"), 400, "invalid_file", "file")
    error(send("a.jsonl", purpose="batch"), 400, "invalid_purpose", "purpose")
    error(client.post("/v1/files", data={"purpose": "fine-tune"}), 400, "invalid_value", "file")
    short = send("a.jsonl", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "5"})
    error(short, 400, "invalid_value", "expires_after[seconds]")
    kept = send("a.jsonl", **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}).json()
    assert kept["expires_at"] - kept["created_at"] == 3600
    for name in ("../../etc/a.jsonl", "C:\\temp\\a.jsonl", "a\n\x1b.jsonl".replace("\n", "\u2028")):
        assert send(name).json()["filename"] == "a.jsonl"


def test_lists_are_paged(api: Api) -> None:
    client = api.client("one")
    files = [upload(client) for _ in range(5)]
    seen, after = [], ""
    while True:
        page = client.get(f"/v1/files?limit=2{after}").json()
        seen += [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == files[::-1]
    assert [each["id"] for each in client.get("/v1/files?order=asc").json()["data"]] == files
    assert client.get("/v1/files?purpose=batch").json()["data"] == []
    for label in ("red", "blue"):
        body = {"model": "tiny", "training_file": files[0], "metadata": {"label": label}}
        assert client.post("/v1/fine_tuning/jobs", json=body).status_code == 200
    assert len(client.get("/v1/fine_tuning/jobs").json()["data"]) == 2
    [blue] = client.get("/v1/fine_tuning/jobs?metadata[label]=blue").json()["data"]
    assert blue["metadata"] == {"label": "blue"}
    error(client.get('/v1/fine_tuning/jobs?metadata["]=a'), 400, "invalid_value", "metadata")
    error(client.get("/v1/fine_tuning/jobs?limit=0"), 400, "invalid_value", "limit")
    assert client.delete(f"/v1/files/{files[0]}").json() == {"id": files[0], "object": "file", "deleted": True}
    assert client.get(f"/v1/files/{files[0]}").status_code == 404


def test_what_is_no_text_is_refused_or_not_there(api: Api) -> None:
    """PostgreSQL has no zero character."""
    client = api.client("one")
    file = upload(client)
    assert client.get("/v1/files/%00").status_code in (400, 404)
    assert client.get("/v1/models/a%00b").status_code in (400, 404)
    for more in ({"suffix": "a\x00"}, {"metadata": {"a\x00": "\x00"}}):
        answer = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file} | more)
        assert answer.status_code in (200, 400)
    surrogate = b'{"model": "tiny", "training_file": "%s", "suffix": "\\ud800"}' % file.encode()
    answer = client.post("/v1/fine_tuning/jobs", content=surrogate, headers={"content-type": "application/json"})
    error(answer, 400, "invalid_value", "suffix")
    assert client.get("/v1/fine_tuning/jobs").status_code == 200


def test_a_base_model_is_not_deleted(api: Api) -> None:
    error(api.client("one").delete("/v1/models/tiny"), 403, "not_allowed", "model")


def test_verbs_that_do_not_suit_the_state(api: Api) -> None:
    client = api.client("one")
    body = {"model": "tiny", "training_file": upload(client)}
    job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    for verb in ("resume", "pause"):
        assert "validating_files" in error(client.post(f"/v1/fine_tuning/jobs/{job}/{verb}"), 400, "wrong_state")
    refused = client.post(f"/v1/fine_tuning/jobs/{job}/pause")
    assert error(refused, 400, "wrong_state").endswith("; pause needs 'queued' or 'running'.")
    cancelled = client.post(f"/v1/fine_tuning/jobs/{job}/cancel").json()
    assert (cancelled["status"], cancelled["finished_at"] >= cancelled["created_at"]) == ("cancelled", True)
    for verb in ("cancel", "pause", "resume"):
        error(client.post(f"/v1/fine_tuning/jobs/{job}/{verb}"), 400, "wrong_state")


def test_a_file_cannot_go_while_a_job_is_made_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    client = api.client("one")
    file = upload(client)
    deleted: list[int] = []
    deletion = threading.Thread(target=lambda: deleted.append(client.delete(f"/v1/files/{file}").status_code))

    def deleted_meanwhile(*arguments: Any) -> Any:
        deletion.start()
        # It cannot be done before the job is there; where it could, this is time enough.
        deletion.join(0.5)
        assert deleted == []
        return create_job(*arguments)

    monkeypatch.setattr("antibody.service.api.jobs.create_job", deleted_meanwhile)
    answer = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file})
    deletion.join()
    assert (answer.status_code, deleted) == (200, [200])
    # One that is gone by then is not there.
    again = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file})
    error(again, 404, "file_not_found", "training_file")
    api.store.sweep(grace=-1)
    assert len(api.store.blobs.names()) == 1


def test_quotas(make_api: Callable[..., Api]) -> None:
    client = make_api(limits={"active_jobs": 1, "stored_megabytes": 0.01}).client("one")
    body = {"model": "tiny", "training_file": upload(client)}
    job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    refused = client.post("/v1/fine_tuning/jobs", json=body)
    error(refused, 429, "exceeded_quota")
    # Waiting a second would not help.
    assert refused.headers["x-should-retry"] == "false"
    client.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    assert client.post("/v1/fine_tuning/jobs", json=body).status_code == 200
    full = client.post("/v1/files", files={"file": ("a.jsonl", rows(100))}, data={"purpose": "fine-tune"})
    error(full, 429, "exceeded_quota")
    announced = {"bytes": 20_000, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    error(client.post("/v1/uploads", json=announced), 429, "exceeded_quota")


def test_files_sent_and_deleted_in_turn_do_not_pass_the_quota_twice(make_api: Callable[..., Api]) -> None:
    api = make_api(limits={"stored_megabytes": 2.5 * len(rows(10)) / 2**20})
    client = api.client("one")

    def send() -> Any:
        return client.post("/v1/files", files={"file": ("a.jsonl", rows(10))}, data={"purpose": "fine-tune"})

    for _ in range(5):
        sent = send()
        assert sent.status_code == 200
        assert client.delete(f"/v1/files/{sent.json()['id']}").json()["deleted"]
    assert client.get("/v1/files").json()["data"] == []
    error(send(), 429, "exceeded_quota")
    api.store.sweep(grace=-1)
    assert send().status_code == 200


def test_uploads_begun_and_cancelled_in_turn_do_not_either(make_api: Callable[..., Api]) -> None:
    api = make_api(limits={"stored_megabytes": 2.5 * len(rows(10)) / 2**20})
    client = api.client("one")
    announced = {"bytes": len(rows(10)), "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    for _ in range(4):
        begun = client.post("/v1/uploads", json=announced).json()["id"]
        assert client.post(f"/v1/uploads/{begun}/parts", files={"data": ("part", rows(10))}).status_code == 200
        assert client.post(f"/v1/uploads/{begun}/cancel").json()["status"] == "cancelled"
    client.post("/v1/uploads", json=announced)
    error(client.post("/v1/uploads", json=announced), 429, "exceeded_quota")
    api.store.sweep(grace=-1)
    assert client.post("/v1/uploads", json=announced).status_code == 200


def test_a_quota_is_not_passed_by_many_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are stored before any is entered."""
    limits = Limits(stored_megabytes=2.5 * len(rows(10)) / 2**20, active_jobs=1)
    monkeypatch.setattr(api.app.state.service, "policy", api.policy.model_copy(update={"limits": limits}))
    client, barrier = api.client("one"), threading.Barrier(5)
    store = api.store.blobs.store

    def together(*arguments: Any, **options: Any) -> Any:
        stored = store(*arguments, **options)
        barrier.wait(30)
        return stored

    def send(_: int) -> int:
        file = {"file": ("a.jsonl", rows(10))}
        return client.post("/v1/files", files=file, data={"purpose": "fine-tune"}).status_code

    with monkeypatch.context() as patched, ThreadPoolExecutor(5) as threads:
        patched.setattr(api.store.blobs, "store", together)
        assert sorted(threads.map(send, range(5))) == [200, 200, 429, 429, 429]
    file = client.get("/v1/files").json()["data"][0]["id"]

    def create(_: int) -> int:
        return client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file}).status_code

    with ThreadPoolExecutor(5) as threads:
        assert sorted(threads.map(create, range(5))) == [200, 429, 429, 429, 429]


def test_sizes_are_refused_before_they_are_read(make_api: Callable[..., Api]) -> None:
    api = make_api(limits={"file_megabytes": 0.1, "part_megabytes": 0.05, "request_kilobytes": 1})
    client = api.client("one")
    big = {"file": ("a.jsonl", b"a" * 200_000)}
    error(client.post("/v1/files", files=big, data={"purpose": "fine-tune"}), 413, "request_too_large")
    error(client.post("/v1/fine_tuning/jobs", content=b"a" * 2000), 413, "request_too_large")
    # Of a size that was not announced.
    error(client.post("/v1/fine_tuning/jobs", content=iter([b"a" * 600] * 3)), 413, "invalid_request")
    within = {"file": ("a.jsonl", b"a" * 110_000)}
    error(client.post("/v1/files", files=within, data={"purpose": "fine-tune"}), 413, "file_too_large", "file")
    assert list(api.store.blobs.spool.iterdir()) == []
    announced = {"bytes": 10**10, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    error(client.post("/v1/uploads", json=announced), 400, "invalid_value", "bytes")
    announced["bytes"] = 60_000
    name = client.post("/v1/uploads", json=announced).json()["id"]
    parts = f"/v1/uploads/{name}/parts"
    error(client.post(parts, files={"data": ("p", b"a" * 55_000)}), 413, "file_too_large", "file")
    assert client.post(parts, files={"data": ("p", b"a" * 50_000)}).status_code == 200
    error(client.post(parts, files={"data": ("p", b"a" * 20_000)}), 400, "too_many_bytes")


def test_the_rate_of_a_key(make_api: Callable[..., Api]) -> None:
    api = make_api()
    seconds = [0.0]
    gate = Gate(api.app, database=api.store.database, limits=Limits(requests_per_minute=3), clock=lambda: seconds[0])
    headers = dict(api.client("one").headers)
    client = TestClient(gate, headers=headers)
    for _ in range(3):
        assert client.get("/v1/models").status_code == 200
    refused = client.get("/v1/models")
    error(refused, 429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "20"
    # Another key has its own.
    assert TestClient(gate, headers=dict(api.client("one").headers)).get("/v1/models").status_code == 200
    seconds[0] = 20
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models").status_code == 429


def test_what_the_machine_refuses_is_said_in_the_wires_format(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = make_api()
    client = api.client("one")
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patched:
        patched.setattr("antibody.service.storage.blobs.os.fsync", full)
        answer = client.post("/v1/files", files={"file": ("a.jsonl", rows(3))}, data={"purpose": "fine-tune"})
    error(answer, 507, "disk_full")
    assert list(api.store.blobs.spool.iterdir()) == []
    assert api.store.blobs.names() == []
    assert client.get("/v1/files").json()["data"] == []
    with monkeypatch.context() as patched:
        # A form that is not small is written to a disk, too.
        patched.setattr("starlette.formparsers.SpooledTemporaryFile.write", full)
        answer = client.post("/v1/files", files={"file": ("a.jsonl", rows(3))}, data={"purpose": "fine-tune"})
    error(answer, 507, "disk_full")
    with monkeypatch.context() as patched:
        patched.setattr("antibody.service.storage.blobs.os.fsync", Mock(side_effect=OSError(errno.EIO, "broken")))
        answer = client.post("/v1/files", files={"file": ("a.jsonl", rows(3))}, data={"purpose": "fine-tune"})
    error(answer, 503, "unavailable")
    other = api.client("two")
    gone = Mock(side_effect=OperationalError("SELECT secret", {}, Exception("gone")))
    with monkeypatch.context() as patched:
        patched.setattr("antibody.service.api.files.page", gone)
        error(client.get("/v1/files"), 503, "unavailable")
        patched.setattr("antibody.service.storage.keys.select", gone)
        error(other.get("/v1/models"), 503, "unavailable")
    with monkeypatch.context() as patched:
        patched.setattr("antibody.service.api.files.page", Mock(side_effect=KeyError("secret")))
        error(client.get("/v1/files"), 500, "internal_error")
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_health_and_metrics(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api()
    client = api.client("one")
    body = {"model": "tiny", "training_file": upload(client)}
    job = client.post("/v1/fine_tuning/jobs", json=body).json()["id"]
    client.get(f"/v1/fine_tuning/jobs/{job}")
    anyone = api.anonymous()
    assert anyone.get("/health").json() == {"status": "ok"}
    assert anyone.get("/ready").json() == {"database": True, "blobs": True, "workers": True}
    text = anyone.get("/metrics").text
    assert 'antibody_jobs{status="validating_files"} 1.0' in text
    assert 'route="/v1/fine_tuning/jobs/{job_id}",status="200"} 1.0' in text
    assert f"antibody_files_bytes {len(rows(10))}.0" in text
    assert job not in text
    monkeypatch.setattr(api.store.database, "answers", lambda: False)
    assert anyone.get("/ready").status_code == 503


def test_chats_that_are_refused(make_api: Callable[..., Api]) -> None:
    client = make_api().client("one")

    def ask(**body: Any) -> Any:
        return client.post("/v1/chat/completions", json={"model": "tiny", "messages": USER} | body)

    error(ask(messages=[]), 400, "invalid_value", "messages")
    error(ask(temperature=3), 400, "invalid_value", "temperature")
    error(ask(n=2), 400, "invalid_value", "n")
    error(ask(tools=[]), 400, "unknown_parameter", "tools")
    error(ask(model="other"), 404, "model_not_found", "model")


def test_large_files_are_streamed(api: Api) -> None:
    client = api.client("one")
    content = io.BytesIO(bytes(range(256)) * 20_000)
    name = upload(client, content.getvalue())
    assert client.get(f"/v1/files/{name}/content").content == content.getvalue()
