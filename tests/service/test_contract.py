"""`schemathesis` against the service's own OpenAPI document: no 5xx, and no answer that the document does not allow."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service.conftest import Api, upload

from antibody.service.chat.protocol import Question, Reply

CHECKS: list[Any] = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


async def answered(question: Question) -> AsyncIterator[Reply]:
    """In the place of a model."""
    yield Reply(question.id, text="Yes")
    yield Reply(question.id, text=".")
    yield Reply(question.id, finish_reason="stop", prompt_tokens=3, completion_tokens=2)


def test_every_operation_keeps_to_its_schema(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api(limits={"active_jobs": 10_000})
    monkeypatch.setattr(api.app.state.service.chat, "ask", answered)
    client = api.client("one")
    file = upload(client)
    job = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file}).json()["id"]
    announced = {"bytes": 5, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    real = {
        "file_id": file,
        "job_id": job,
        "model": "tiny",
        "upload_id": client.post("/v1/uploads", json=announced).json()["id"],
    }
    headers = {"authorization": client.headers["authorization"]}
    seen: dict[str, set[int]] = {}

    def check(operation: Any, examples: int, mode: Any) -> None:
        @settings(
            max_examples=examples, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def run(case: Any, known: bool) -> None:
            if known:
                case.path_parameters = {name: real[name] for name in case.path_parameters or {}}
                if isinstance(case.body, dict) and "training_file" in case.body:
                    case.body |= {"training_file": real["file_id"], "model": "tiny"}
                    case.body.pop("validation_file", None)
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS, headers=headers)
            seen.setdefault(operation.label, set()).add(response.status_code)

        run()

    schema = from_asgi("/openapi.json", api.app)
    for result in schema.get_all_operations():
        operation = result.ok()
        real["file_id"] = upload(client)
        for mode in schemathesis.GenerationMode:
            check(operation, 6, mode)
    assert len(seen) == 21
    # What was tried was not all refused.
    read = {label for label in seen if label.startswith("GET")}
    assert [label for label in read if 200 not in seen[label]] == []
    assert {400, 401, 403, 404} <= set().union(*seen.values())
