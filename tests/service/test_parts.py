"""Uploads in parts: what is refused leaves nothing, and what ends one upload excludes the rest."""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from service.conftest import Api, rows
from sqlalchemy import select
from starlette.testclient import TestClient

from antibody.service.api import uploads
from antibody.service.storage.tables import UploadPart

CONTENT = rows(10)


def announced(client: TestClient) -> str:
    """An upload of `CONTENT`."""
    body = {"bytes": len(CONTENT), "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    answer = client.post("/v1/uploads", json=body)
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


def send(client: TestClient, upload: str, content: bytes) -> Any:
    return client.post(f"/v1/uploads/{upload}/parts", files={"data": ("part", content)})


def complete(client: TestClient, upload: str, parts: list[str], md5: str | None = None) -> Any:
    return client.post(f"/v1/uploads/{upload}/complete", json={"part_ids": parts, "md5": md5})


def code(answer: Any) -> str:
    assert answer.status_code == 400, answer.text
    found: str = answer.json()["error"]["code"]
    return found


def test_a_wrong_md5_is_refused_before_the_file_is_kept(make_api: Callable[..., Api]) -> None:
    api = make_api()
    client = api.client("one")
    upload = announced(client)
    parts = [send(client, upload, piece).json()["id"] for piece in (CONTENT[:100], CONTENT[100:])]
    before = set(api.store.blobs.names())
    assert code(complete(client, upload, parts, "0" * 32)) == "wrong_md5"
    assert set(api.store.blobs.names()) == before
    assert list(api.store.blobs.spool.iterdir()) == []
    # It may be tried again, in capitals too.
    assert complete(client, upload, parts, hashlib.md5(CONTENT).hexdigest().upper()).status_code == 200


def test_a_part_too_large_is_refused_before_it_is_stored(make_api: Callable[..., Api]) -> None:
    api = make_api()
    client = api.client("one")
    upload = announced(client)
    assert send(client, upload, CONTENT[:100]).status_code == 200
    before = api.store.blobs.names()
    assert code(send(client, upload, CONTENT)) == "too_many_bytes"
    assert api.store.blobs.names() == before


@pytest.mark.parametrize("pair", ["complete complete", "complete cancel", "complete add", "cancel add"])
def test_what_is_done_to_one_upload_at_once_happens_one_after_the_other(
    pair: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api.client("one")
    upload = announced(client)
    part = send(client, upload, CONTENT).json()["id"]
    # Room for a second part, where nothing excludes it.
    monkeypatch.setattr(uploads, "_refuse_too_many", lambda *_: None)
    pending, lock, inside = uploads._pending, uploads.lock_project, threading.local()
    together = threading.Barrier(2)

    def locked(*arguments: Any) -> None:
        lock(*arguments)
        inside.transaction = True

    def found_pending(*arguments: Any) -> Any:
        upload = pending(*arguments)
        if getattr(inside, "transaction", False):
            # The other cannot come as far meanwhile; where it could, this is time enough.
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(0.5)
        return upload

    monkeypatch.setattr(uploads, "lock_project", locked)
    monkeypatch.setattr(uploads, "_pending", found_pending)
    actions: dict[str, Callable[[], Any]] = {
        "complete": lambda: complete(client, upload, [part]),
        "cancel": lambda: client.post(f"/v1/uploads/{upload}/cancel"),
        "add": lambda: send(client, upload, b"more"),
    }
    answers: list[tuple[str, int]] = []
    threads = [
        threading.Thread(target=lambda name=name: answers.append((name, actions[name]().status_code)))
        for name in pair.split()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = [(name, status) for name, status in answers if name != "add"]
    assert len(answers) == 2
    assert {status for _, status in answers} <= {200, 400}
    assert [status for _, status in ended].count(200) == 1
    completed = ("complete", 200) in answers
    assert len(client.get("/v1/files").json()["data"]) == completed
    # They count until they are swept.
    api.store.sweep(grace=-1)
    with api.store.database.reading() as session:
        assert list(session.scalars(select(UploadPart))) == []
