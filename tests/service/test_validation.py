"""Rows too long for the service, which only a tokenizer finds, and problems of a file."""

import json
from pathlib import Path

import pytest
from service.conftest import rows
from service.test_jobs import new_job, order, read
from sqlalchemy import select

from antibody.errors import DataError
from antibody.service.jobs.leases import claim
from antibody.service.jobs.problems import Problems
from antibody.service.jobs.worker import _attempt
from antibody.service.policy import Policy
from antibody.service.storage.store import Store
from antibody.service.storage.tables import Event, Job


def test_rows_too_long_for_the_service_are_told_before_the_job_waits(
    sqlite_store: Store, tiny_model_folder: Path
) -> None:
    """One token a byte, and 32 of the template's for these rows."""
    policy = Policy.model_validate(
        {"models": {"tiny": {"run": str(tiny_model_folder)}}, "training": {"max_length": 100}}
    )

    def validated(question: int, answer: int) -> Job:
        chat = [{"role": "user", "content": "q" * question}, {"role": "assistant", "content": "a" * answer}]
        job = new_job(sqlite_store, rows(10) + json.dumps({"messages": chat}).encode())
        assert claim(sqlite_store.database, "me", ["validating_files"], 100) == job
        _attempt(sqlite_store, order(sqlite_store)._replace(policy=policy), job)
        return read(sqlite_store, job)

    def said(job: Job) -> list[str]:
        with sqlite_store.database.reading() as session:
            return list(session.scalars(select(Event.message).where(Event.job_id == job.id).order_by(Event.number)))

    failed = validated(100, 5)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == ("failed", "invalid_training_file")
    assert failed.error["message"].startswith("a.jsonl, line 11: The prompt has ")
    assert "its provider can raise it" in failed.error["message"]
    assert "--max-length" not in failed.error["message"]
    assert not any("waits for a worker" in message for message in said(failed))
    cut = validated(5, 100)
    assert cut.status == "queued"
    assert said(cut)[-2].startswith(
        "1 answer(s) of the training file are cut at the end: the service reads at most 100 tokens"
    )
    assert len(said(validated(5, 5))) == 3


def test_a_row_is_one_problem_however_many_answers_it_has() -> None:
    problems = Problems()
    for line in (3, 3, 5):
        problems.add(DataError("Long.", hint="Cut it.", code="prompt_fills_context", path="a", line=line))
    assert (problems.count, [error.line for error in problems.first]) == (2, [3, 5])


def test_a_model_whose_tokenizer_cannot_be_loaded_fails_the_job_with_a_reason(
    sqlite_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = new_job(sqlite_store)
    policy = Policy.model_validate({"models": {"tiny": {"run": str(tmp_path)}}, "training": {"max_length": 100}})
    assert claim(sqlite_store.database, "me", ["validating_files"], 100) == job
    _attempt(sqlite_store, order(sqlite_store)._replace(policy=policy), job)
    error = read(sqlite_store, job).error
    assert error is not None
    assert (error["code"], error["message"]) == (
        "server_error", "The service cannot read the model (model_not_loadable)."
    )  # fmt: skip
    assert "The tokenizer of tiny cannot be used" in caplog.text
