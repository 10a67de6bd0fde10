"""Whatever a user uploads, the job is queued or fails with file, line and reason."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.conftest import rows

from antibody.service.jobs.validation import RefusedError, read_both
from antibody.service.policy import Policy
from antibody.service.storage.blobs import BlobStore

GOOD = rows(1).rstrip()
# Without models no length is checked.
POLICY = Policy.model_validate({"limits": {"least_examples": 1}})


def messages(*turns: Any, **more: Any) -> bytes:
    return json.dumps({"messages": list(turns)} | more).encode()


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
BAD = {
    "broken UTF-8": b'{"messages": "\xff\xfe"}',
    "half a character": GOOD[:-20] + b"\xc3",
    "a zero byte": b'{"messages": "\x00"}',
    "not JSON": b'{"messages": [',
    "no object": b"[1, 2]",
    "a number": b"1" * 5000,
    "not a number": b'{"messages": NaN}',
    "deep nesting": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a key twice": b'{"messages": [], "messages": []}',
    "a key twice, inside": b'{"messages": [{"role": "user", "role": "user", "content": "a"}]}',
    "no field": b"{}",
    "wrong role": messages({"role": "robot", "content": "a"}, ASSISTANT),
    "role of another kind": messages({"role": ["user"], "content": "a"}, ASSISTANT),
    "empty turn": messages({"role": "user", "content": ""}, ASSISTANT),
    "blank turn": messages(USER, {"role": "assistant", "content": " \n"}),
    "no turns": messages(),
    "no content": messages(USER, {"role": "assistant"}),
    "no assistant": messages(USER),
    "assistant first": messages(ASSISTANT, USER),
    "weight of 2": messages(USER, ASSISTANT | {"weight": 2}),
    "weight of 0 alone": messages(USER, ASSISTANT | {"weight": 0}),
    "half of a surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "ten megabytes": b'{"messages": "' + b"a" * 10_000_000 + b'"}',
}


class Store:
    """Blobs alone."""

    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(str(folder / "blobs"), folder / "spool")

    def refusal(self, content: bytes) -> str | None:
        sha256 = self.blobs.store(io.BytesIO(content)).sha256
        job: Any = SimpleNamespace(
            model="tiny",
            training_sha256=sha256,
            training_name="up.jsonl",
            validation_sha256=None,
            validation_name=None,
        )
        store: Any = self
        try:
            read_both(store, job, POLICY)
        except RefusedError as refused:
            assert refused.error.param == "training_file"
            return refused.error.message
        return None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("uploads")
    yield Store(folder)
    # Nothing is left of what was read.
    assert list((folder / "spool").iterdir()) == []


@pytest.mark.parametrize("name", BAD)
def test_each_kind_of_bad_line_is_named(name: str, store: Store) -> None:
    said = store.refusal(GOOD + b"\n" + BAD[name] + b"\n" + GOOD)
    assert said is not None
    assert re.match(r"up\.jsonl, line 2(, field `[^`]*`)?: .{10,}\.", said), said
    assert len(said) < 1000


def test_the_first_bad_lines_are_named_and_all_are_counted(store: Store) -> None:
    bad = [b"{}", BAD["wrong role"], BAD["not JSON"]]
    said = store.refusal(b"\n".join([GOOD, *bad, GOOD])) or ""
    assert [line.partition(":")[0] for line in said.split("\n")] == [
        "up.jsonl, line 2",
        "up.jsonl, line 3, field `messages[0].role`",
        "up.jsonl, line 4",
        "3 rows cannot be trained on.",
    ]
    many = (store.refusal(b"\n".join([GOOD, *[b"{}"] * 30])) or "").split("\n")
    assert many[-1] == "30 rows cannot be trained on; the first 10 are named."
    assert [line.partition(":")[0] for line in many[:-1]] == [f"up.jsonl, line {number}" for number in range(2, 12)]
    # What to do about one mistake is said once.
    assert ["Give every row" in line for line in many] == [True] + [False] * 10


def test_after_what_is_no_text_nothing_is_read(store: Store) -> None:
    said = store.refusal(b"\n".join([GOOD, b"{}", *[BAD["a zero byte"]] * 5])) or ""
    assert said.endswith("2 rows cannot be trained on.")


LINES = st.one_of(
    st.just(GOOD),
    st.sampled_from([line for line in BAD.values() if len(line) < 1000]),
    st.binary(max_size=40).filter(lambda line: b"\n" not in line and line.strip()),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).map(lambda content: json.dumps({"messages": content}).encode()),
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(LINES, min_size=1, max_size=5))
def test_any_lines(lines: list[bytes], store: Store) -> None:
    said = store.refusal(b"\n".join(lines))
    bad = next((number for number, line in enumerate(lines, start=1) if line != GOOD), None)
    if bad is None:
        assert said is None
    else:
        assert said is not None
        assert re.match(rf"up\.jsonl, line {bad}\b", said), said


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes(content: bytes, store: Store) -> None:
    said = store.refusal(content)
    if content.strip(b" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85"):
        assert said is not None
        assert said.startswith(("up.jsonl, line ", "Training file has 0 example"))
