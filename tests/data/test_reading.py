"""Files and Hub data sets in, records or a located error out."""

import gzip
import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antibody.data.reading import read_prompts, read_records, read_texts, stream_records
from antibody.errors import DataError, UsageError

ROW = {"prompt": "Hello?", "completion": "Hi."}
GOOD = json.dumps(ROW).encode()


def write(folder: Path, content: bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: str | Path, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_records(path, **options)
    assert caught.value.path == str(path)
    assert caught.value.hint
    return caught.value


def test_lines_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD + b"\r\n \n\n" + GOOD
    path = write(tmp_path, content)
    loaded = read_records(path)
    assert [(record.id, record.line, record.source) for record in loaded.records] == [
        ("row-1", 1, str(path)),
        ("row-4", 4, str(path)),
    ]
    assert (loaded.rows, loaded.path, loaded.sha256) == (2, str(path), hashlib.sha256(content).hexdigest())


def test_a_row_of_several_answers_is_one_row(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}
    loaded = read_records(
        write(tmp_path, json.dumps({"messages": [user, assistant, user, assistant]}).encode() + b"\n" + GOOD)
    )
    assert (loaded.rows, [record.id for record in loaded.records]) == (2, ["row-1#1", "row-1#2", "row-2"])


def test_counted_rows_do_not_stay_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path, b"\n".join([json.dumps({**ROW, "completion": "a" * 10_000}).encode()] * 1000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream_records(path)) == 1000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 5
    finally:
        tracemalloc.stop()


def test_a_very_long_line_and_unicode_line_separators_are_one_line(tmp_path: Path) -> None:
    text = "é\u2028\x85" * 500_000
    loaded = read_records(write(tmp_path, json.dumps({**ROW, "completion": text}, ensure_ascii=False).encode()))
    assert loaded.records[0].response == text


@pytest.mark.parametrize(
    ("code", "line", "second"),
    [
        ("bad_json", 2, b"{'prompt': 1}"),
        ("bad_json", 2, b'{"prompt": "Hello?", "completion": "Hi."} {}'),
        ("bad_json", 2, b'{"prompt": NaN}'),
        ("bad_json", 2, b'{"prompt": "a", "completion": "b", "id": -Infinity}'),
        ("bad_json", 2, b'{"id": ' + b"9" * 5000 + b"}"),
        ("bad_json", 2, b'{"id": ' + b"[" * 200_000),
        ("bad_json", 2, b'{"id": ' + b'{"a":' * 200_000),
        ("bad_utf8", 2, b'{"prompt": "caf\xe9"}'),
        ("bad_utf8", 2, b'{"prompt": "a", "completion": "\\ud83d"}'),
        ("binary_file", 2, b"\0"),
        ("duplicate_key", 2, b'{"prompt": "a", "prompt": "b", "completion": "c"}'),
        ("duplicate_key", 2, b'{"prompt": "a", "completion": "c", "x": {"\\ud800": 1, "\\ud800": 2}}'),
        ("duplicate_id", 2, b'{"prompt": "a", "completion": "b", "id": "row-1"}'),
        ("not_an_object", 2, b"[1]"),
        ("unknown_format", 2, b'{"text": "a"}'),
        ("empty_content", 2, b'{"prompt": "a", "completion": ""}'),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, code: str, line: int, second: bytes) -> None:
    error = refusal(write(tmp_path, GOOD + b"\n" + second + b"\n" + GOOD))
    assert (error.code, error.line) == (code, line)
    str(error).encode()


def test_reading_goes_on_after_a_row_that_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"\n".join([GOOD, b"{", b"\xff", b"[1]", GOOD, b'{"prompt": "a"}', b"\0", GOOD, b"{"]))
    refused: list[DataError] = []
    records = [record for row in stream_records(path, refused=refused.append) for record in row]
    assert [record.line for record in records] == [1, 5]
    # Nothing is read after what is no text.
    assert [(error.line, error.code) for error in refused] == [
        (2, "bad_json"),
        (3, "bad_utf8"),
        (4, "not_an_object"),
        (6, "unknown_format"),
        (7, "binary_file"),
    ]


def parquet_bytes(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("code", "name", "content"),
    [
        ("empty_file", "rows.jsonl", b""),
        ("empty_file", "rows.jsonl", b"\xef\xbb\xbf \n\n"),
        ("empty_file", "rows.parquet", parquet_bytes(prompt=[], response=[])),
        ("binary_file", "rows.jsonl", gzip.compress(GOOD, mtime=0)),
        ("binary_file", "rows.jsonl", b"PAR1 and so on"),
        ("binary_file", "rows.jsonl", GOOD.decode().encode("utf-16-le")),
        ("bad_utf8", "rows.jsonl", b"\xff"),
        ("unknown_suffix", "rows.json", GOOD),
        ("unknown_suffix", "rows", GOOD),
        ("bad_parquet", "rows.parquet", GOOD),
        ("bad_parquet", "rows.parquet", b""),
        ("unknown_format", "rows.parquet", parquet_bytes(question=["a"], answer=["b"])),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, code: str, name: str, content: bytes) -> None:
    assert refusal(write(tmp_path, content, name)).code == code


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "rows.jsonl")
    assert missing.code == "file_not_found"
    assert "hf://datasets/OWNER/NAME" in missing.hint
    assert refusal("owner/name").code == "file_not_found"
    assert refusal(tmp_path).code == "not_a_file"
    assert refusal("x" * 5000 + ".jsonl").code == "unreadable_file"


def test_a_named_format_is_used_for_every_row(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"instruction": "a", "output": "b", "prompt": "c", "response": "d"}')
    assert refusal(path).code == "unknown_format"
    assert read_records(path, format="alpaca").records[0].response == "b"
    with pytest.raises(UsageError, match="sharegpt"):
        read_records(path, format="sharegpt")


def test_parquet_rows_are_numbered_and_absent_fields_are_null(tmp_path: Path) -> None:
    user = {"role": "user", "content": "Hello?"}
    rows: list[object] = [
        [user, {"role": "assistant", "content": "No.", "weight": 0}, user, {"role": "assistant", "content": "Hi."}],
        [user, {"role": "assistant", "content": "Ho.", "weight": 1}],
    ]
    unreadable = pa.array([b"\xff", b""]).view(pa.string())
    content = parquet_bytes(messages=rows, is_safe=[True, None], unused=unreadable)
    loaded = read_records(write(tmp_path, content, "rows.PARQUET"))
    assert [(each.id, each.line, each.response, each.harmful) for each in loaded.records] == [
        ("row-1#2", 1, "Hi.", False),
        ("row-2", 2, "Ho.", None),
    ]
    assert (loaded.rows, loaded.sha256) == (2, hashlib.sha256(content).hexdigest())


def test_a_null_in_parquet_is_no_text(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, parquet_bytes(prompt=["a", None], response=["b", "c"]), "rows.parquet"))
    assert (error.code, error.line, error.field) == ("not_a_string", 2, "prompt")


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    column = pa.array(["a"])
    pq.write_table(pa.Table.from_arrays([column, column, column], names=["prompt", "prompt", "response"]), path)
    assert refusal(path).code == "duplicate_key"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Hub answers: `table`, or `error`; `asked` holds the arguments of the last call."""
    import datasets

    answers: dict[str, Any] = {}

    def load_dataset(name: str, *, split: str) -> object:
        answers["asked"] = (name, split)
        if "error" in answers:
            raise answers["error"]
        return answers["table"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return answers


def test_a_hub_data_set_is_read_and_hashed_by_its_rows(hub: dict[str, Any]) -> None:
    import datasets

    hub["table"] = datasets.Dataset.from_dict({**{key: [value] * 2 for key, value in ROW.items()}, "other": [1, 2]})
    first = read_records("hf://datasets/owner/name")
    assert hub["asked"] == ("owner/name", "train")
    assert [(record.id, record.source) for record in first.records] == [
        ("row-1", "hf://datasets/owner/name"),
        ("row-2", "hf://datasets/owner/name"),
    ]
    hub["table"] = datasets.Dataset.from_dict({"prompt": ["Hello?"] * 2, "completion": ["Hi.", "Ho."]})
    assert read_records("hf://datasets/owner/name").sha256 != first.sha256
    hub["table"] = datasets.Dataset.from_dict({"question": ["a"]})
    assert refusal("hf://datasets/owner/name").code == "unknown_format"


def test_prompts_come_from_the_hub_too(hub: dict[str, Any]) -> None:
    import datasets

    hub["table"] = datasets.Dataset.from_dict({"prompt": ["Hello?", "Why?"], "category": ["a", "b"]})
    records = read_prompts("hf://datasets/owner/name")
    assert [(record.request, record.response, record.category) for record in records] == [
        ("Hello?", "", "a"),
        ("Why?", "", "b"),
    ]


@pytest.mark.parametrize("error", [ConnectionError("no network"), ValueError("Unknown split"), RuntimeError("script")])
def test_hub_errors_are_wrapped(hub: dict[str, Any], error: Exception) -> None:
    hub["error"] = error
    refused = refusal("hf://datasets/owner/name")
    assert refused.code == "hub_unavailable"
    assert str(error) in refused.message


def test_a_hub_name_without_an_owner_is_refused(hub: dict[str, Any]) -> None:
    assert refusal("hf://datasets/name").code == "bad_hub_name"
    assert "asked" not in hub


def test_texts(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, b'{"text": "No."}\n\n{"text": "Never."}\n')) == ["No.", "Never."]
    for code, line, content in (
        ("missing_field", 1, b"{}"),
        ("not_an_object", 1, b'"No."'),
        ("empty_content", 2, b'{"text": "No."}\n{"text": " "}'),
        ("not_a_string", 1, b'{"text": null}'),
        ("bad_json", 1, b"No."),
        ("empty_file", None, b"\n"),
    ):
        with pytest.raises(DataError) as caught:
            read_texts(write(tmp_path, content))
        assert (caught.value.code, caught.value.line) == (code, line)


def reads_or_refuses(path: Path) -> None:
    try:
        loaded = read_records(path)
    except DataError as error:
        with pytest.raises(DataError) as counting:
            list(stream_records(path))
        assert counting.value.to_json() == error.to_json()
        assert error.line is not None or error.code in ("empty_file", "bad_parquet", "unknown_format", "duplicate_key")
        json.dumps(error.to_json(), ensure_ascii=False).encode()
    else:
        assert loaded.records
        assert [record for row in stream_records(path) for record in row] == loaded.records


reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@reuse_folder
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_random_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    if content.strip():
        error = refusal(path)
        assert error.line is not None or error.code == "empty_file"
    else:
        assert refusal(path).code == "empty_file"


@reuse_folder
@given(data=st.data())
def test_mutated_uploads_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a good upload are deleted, inserted, repeated or replaced."""
    user, assistant = {"role": "user", "content": "Hé?"}, {"role": "assistant", "content": "Hi.", "weight": 1}
    content = bytearray(
        b"\n".join([GOOD, json.dumps({"messages": [user, assistant], "id": 3, "is_safe": True}).encode()])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        to = min(len(content), at + data.draw(st.integers(0, 8)))
        content[at:to] = data.draw(
            st.sampled_from(
                [b"", b"\n", b'"', b"{", b"}", b"null", b"NaN", b"\xff", b"\\ud800", b"1e999", b"\0", b", "]
            )
            | st.just(bytes(content[at:to]) * 2)
        )
    reads_or_refuses(write(tmp_path, bytes(content)))


@reuse_folder
@given(data=st.data())
def test_damaged_parquet_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(parquet_bytes(prompt=["a", "b"] * 20, response=["c", "d"] * 20, id=list(range(40))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    reads_or_refuses(write(tmp_path, bytes(content), "rows.parquet"))
