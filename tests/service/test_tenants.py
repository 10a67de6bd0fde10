"""A project can neither see nor guess another's objects, on any route there is."""

import time
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi.routing import APIRoute
from service.conftest import Api, eventually, rows, upload
from starlette.testclient import TestClient

from antibody.service.jobs.events import add_checkpoint, tell
from antibody.service.storage.keys import REMEMBERED, KeyRing, create_key, revoke_key
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Model
from antibody.service.wire.jobs import CheckpointMetrics

# Every route that names an object, with a body that would be right for its owner.
OBJECTS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("GET", "/v1/files/{file_id}"): ("file", {}),
    ("DELETE", "/v1/files/{file_id}"): ("file", {}),
    ("GET", "/v1/files/{file_id}/content"): ("file", {}),
    ("POST", "/v1/uploads/{upload_id}/parts"): ("upload", {"files": {"data": ("part", b"12")}}),
    ("POST", "/v1/uploads/{upload_id}/complete"): ("upload", {"json": {"part_ids": ["part-1"]}}),
    ("POST", "/v1/uploads/{upload_id}/cancel"): ("upload", {}),
    ("GET", "/v1/fine_tuning/jobs/{job_id}"): ("job", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel"): ("job", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/pause"): ("job", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/resume"): ("job", {}),
    ("GET", "/v1/fine_tuning/jobs/{job_id}/events"): ("job", {}),
    ("GET", "/v1/fine_tuning/jobs/{job_id}/checkpoints"): ("job", {}),
    ("GET", "/v1/models/{model}"): ("model", {}),
    ("DELETE", "/v1/models/{model}"): ("model", {}),
}
# Those that list, or take the object's name in their body.
OTHERS = {
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("POST", "/v1/uploads"),
    ("GET", "/v1/fine_tuning/jobs"),
    ("POST", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
}


def test_every_route_is_here(api: Api) -> None:
    routes = {
        (method, path)
        for path, operations in api.app.openapi()["paths"].items()
        for method in (name.upper() for name in operations)
    }
    assert routes == OBJECTS.keys() | OTHERS
    assert all(
        isinstance(route, APIRoute) or not getattr(route, "path", "").startswith("/v1") for route in api.app.routes
    )


def objects_of(api: Api, client: TestClient) -> dict[str, str]:
    """One of each kind."""
    file = upload(client)
    announced = client.post(
        "/v1/uploads",
        json={"bytes": 2, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"},
    ).json()["id"]
    job = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file}).json()["id"]
    caller = KeyRing(api.store.database).find(client.headers["authorization"].removeprefix("Bearer "))
    assert caller is not None
    with api.store.database.writing() as session:
        tell(session, job, "Something.")
        add_checkpoint(session, job, CheckpointMetrics(step=1))
        session.add(
            Model(
                id="ft:tiny:one::x",
                project_id=caller.project,
                job_id=job,
                base="tiny",
                run="no",
                created_at=time.time(),
            )
        )
    return {"file": file, "upload": announced, "job": job, "model": "ft:tiny:one::x"}


def call(client: TestClient, route: tuple[str, str], name: str, options: dict[str, Any]) -> Any:
    method, path = route
    return client.request(method, path[: path.index("{")] + name + path[path.index("}") + 1 :], **options)


def test_another_projects_objects_look_as_if_they_were_not_there(api: Api) -> None:
    mine, theirs = api.client("one"), api.client("two")
    objects = objects_of(api, mine)
    for route, (kind, options) in OBJECTS.items():
        other = call(theirs, route, objects[kind], options)
        never = call(theirs, route, objects[kind][:-1] + "0", options)
        assert other.status_code == 404, route
        assert other.json()["error"]["message"].replace(objects[kind], "X") == never.json()["error"]["message"].replace(
            objects[kind][:-1] + "0", "X"
        )
    assert theirs.get("/v1/files").json()["data"] == []
    assert theirs.get("/v1/fine_tuning/jobs").json()["data"] == []
    assert [model["id"] for model in theirs.get("/v1/models").json()["data"]] == ["tiny"]
    for body in (
        {"model": "tiny", "training_file": objects["file"]},
        {"model": "tiny", "training_file": upload(theirs), "validation_file": objects["file"]},
    ):
        assert theirs.post("/v1/fine_tuning/jobs", json=body).status_code == 404
    for stream in (False, True):
        chat = {"model": objects["model"], "messages": [{"role": "user", "content": "a"}], "stream": stream}
        assert theirs.post("/v1/chat/completions", json=chat).status_code == 404
    # Nor as the place where a list begins.
    assert theirs.get(f"/v1/files?after={objects['file']}").status_code == 400
    assert theirs.get(f"/v1/fine_tuning/jobs?after={objects['job']}").status_code == 400
    # Nothing of it was touched, and all of it is its owner's to use.
    for route, (kind, options) in OBJECTS.items():
        if route[0] == "GET":
            assert call(mine, route, objects[kind], options).status_code == 200, route
    for verb in ("pause", "cancel"):
        answer = mine.post(f"/v1/fine_tuning/jobs/{objects['job']}/{verb}")
        assert answer.status_code == (400 if verb == "pause" else 200)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer sk-antibody-a-b", "Bearer é"])
def test_no_route_answers_without_a_valid_key(header: str | None, api: Api) -> None:
    stranger = api.anonymous(headers={} if header is None else {b"authorization": header.encode()})
    for method, path in OBJECTS.keys() | OTHERS:
        answer = stranger.request(method, path.replace("{", "").replace("}", ""))
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
    assert stranger.get("/v1/nothing").status_code == 401
    assert stranger.get("/health").status_code == 200


def test_a_revoked_key_and_a_wrong_secret_open_nothing(api: Api) -> None:
    key = create_key(api.store.database, project="one", name="")
    client = api.anonymous(headers={"authorization": f"Bearer {key.secret}"})
    assert client.get("/v1/models").status_code == 200
    wrong = key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b")
    assert api.anonymous(headers={"authorization": f"Bearer {wrong}"}).get("/v1/models").status_code == 401
    revoke_key(api.store.database, key.id)
    # A server remembers for some seconds what it read.
    eventually(lambda: client.get("/v1/models").status_code == 401)


def test_a_key_that_is_remembered_opens_no_more_than_one_that_is_read(sqlite_store: Store) -> None:
    seconds = [0.0]
    keys = KeyRing(sqlite_store.database, lambda: seconds[0])
    key = create_key(sqlite_store.database, project="one", name="")
    wrong = key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b")
    assert keys.remembered(key.secret) is None
    caller = keys.find(key.secret)
    assert caller == KeyRing(sqlite_store.database).find(key.secret) == keys.remembered(key.secret)
    for other in (wrong, "", "sk-antibody-x", key.secret + "a"):
        assert keys.remembered(other) is keys.find(other) is None
    revoke_key(sqlite_store.database, key.id)
    assert keys.remembered(key.secret) == caller
    seconds[0] = REMEMBERED
    assert keys.remembered(key.secret) is keys.find(key.secret) is None


def test_the_database_is_not_asked_about_what_has_no_keys_form() -> None:
    database = Mock()
    keys = KeyRing(database)
    for other in ("", "sk-antibody-x", "sk-antibody-" + "a" * 12 + "-" + "a" * 41, "\x00", "é" * 10_000):
        assert keys.remembered(other) is keys.find(other) is None
    database.reading.assert_not_called()


def test_keys_are_not_kept(api: Api) -> None:
    key = create_key(api.store.database, project="one", name="laptop")
    secret = key.secret.rpartition("-")[2]
    with api.store.database.engine.connect() as connection:
        kept = str(connection.exec_driver_sql("SELECT * FROM keys").all())
    assert key.id in kept
    assert secret not in kept
    assert rows(1)
