"""Reading training data: JSONL, Parquet and the Hub, in; records, or an error that names the line, out."""

import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from antibody.data.formats import FORMATS, Place, detect, parse, text
from antibody.data.records import Record
from antibody.errors import DataError, UsageError
from antibody.files import sha256

HUB_PREFIX = "hf://datasets/"
SPLIT = "train"
SUFFIXES = (".jsonl", ".parquet")

# Only these columns of a table are read: others may hold images or cost memory, and nothing uses them.
COLUMNS = {"input", "id", "harmful", "is_safe", "category", "text"}.union(*(each.fields for each in FORMATS.values()))
# Parquet, gzip, zip (also .xlsx and .npz), zstd: what people most often rename to .jsonl.
MAGIC = (b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")
# What pyarrow raises for a damaged file or a value that Python cannot hold.
UNREADABLE = (pyarrow.ArrowException, OSError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Loaded:
    """Records and what identifies their source.

    Attributes:
        records: In the source's order.
        sha256: Of the file's bytes; for the Hub, of the rows that were read.
        path: The file or Hub name, as given.
        rows: Source rows read; a chat with several answers is one row and several records.
    """

    records: list[Record]
    sha256: str
    path: str
    rows: int


class _Rows(NamedTuple):
    """Numbered rows, or why one cannot be read. A table's columns are one for all rows, and so is its format."""

    rows: Iterator[tuple[int, object]]
    columns: list[str] | None = None


class _DuplicateKeyError(Exception):
    pass


def raise_it(error: DataError) -> None:
    """What becomes of a row that must not be trained on, where nothing else is said."""
    raise error


def read_records(source: str | Path, *, format: str | None = None) -> Loaded:
    """Read and validate a data set.

    Args:
        source: A `.jsonl` or `.parquet` file, or ``hf://datasets/OWNER/NAME``, of which the split ``train`` is read.
        format: A name in `FORMATS`; by default each row's fields decide (for a table, its columns).

    Raises:
        DataError: Something in it must not be trained on; names the file and, for a row, its line and field.
        UsageError: `format` is not a format.
    """
    path = str(source)
    digest = hashlib.sha256()
    records: list[Record] = []
    count = 0
    for row, parsed in _parsed(path, format):
        count += 1
        if path.startswith(HUB_PREFIX):
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        records += parsed
    fingerprint = digest.hexdigest() if path.startswith(HUB_PREFIX) else sha256(Path(path))
    return Loaded(records, fingerprint, path, count)


def stream_records(
    source: str | Path, *, format: str | None = None, refused: Callable[[DataError], None] = raise_it
) -> Iterator[list[Record]]:
    """Each row's records, as `read_records` reads them. Keeps nothing of them in memory but their ids.

    Args:
        source: As for `read_records`.
        format: Likewise.
        refused: Called for each row that must not be trained on. Where it returns, reading goes on after that row.

    Raises:
        DataError, UsageError: As `read_records`.
    """
    return (records for _, records in _parsed(str(source), format, refused))


def _parsed(
    path: str, format: str | None, refused: Callable[[DataError], None] = raise_it
) -> Iterator[tuple[object, list[Record]]]:
    """Every row that can be trained on, as it is and as records."""
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"There is no data format {format!r}.", hint=f"Use one of: {', '.join(FORMATS)}.", code="unknown_format"
        )
    found = _open(path)
    if found.columns is not None and format is None:
        format = detect(dict.fromkeys(found.columns), path=path)
    lines: dict[str, int] = {}
    empty = True
    for line, row in found.rows:
        empty = False
        try:
            records = _new(parse(_sound(row), path=path, line=line, format=format), lines)
        except DataError as error:
            refused(error)
        else:
            yield row, records
    if empty:
        raise _empty(path)


def _new(records: list[Record], lines: dict[str, int]) -> list[Record]:
    """Notes the lines of a row's records, whose ids no other row may have."""
    for record in records:
        if record.id in lines:
            raise Place(record.source, record.line).error(
                "duplicate_id",
                f"The id {record.id[:80]!r} is also that of line {lines[record.id]}.",
                "Give every row its own id, or leave ids out.",
                field="id",
            )
        lines[record.id] = record.line
    return records


def _sound(row: object) -> object:
    if isinstance(row, DataError):
        raise row
    return row


def _sound_rows(path: str) -> Iterator[tuple[int, object]]:
    return ((line, _sound(row)) for line, row in _open(path).rows)


def read_prompts(source: str | Path) -> list[Record]:
    """Read the ``prompt`` of every row, and its ``category`` and ``response`` where there are any.

    Rows in a format of `FORMATS` are read as that; only a row without any answer is read as a bare prompt.

    Raises:
        DataError: As `read_records`.
    """
    path = str(source)
    records: list[Record] = []
    for line, row in _sound_rows(path):
        place = Place(path, line)
        if not isinstance(row, dict):
            raise place.error("not_an_object", "Expected a JSON object.", 'Write one {"prompt": "..."} on every line.')
        if "prompt" in row and not {"response", "completion"} & row.keys():
            answered = parse(row | {"response": "-"}, path=path, line=line, format="prompt-response")
            records.extend(replace(record, response="") for record in answered)
        else:
            records.extend(parse(row, path=path, line=line))
    if not records:
        raise _empty(path)
    return records


def read_texts(source: str | Path) -> list[str]:
    """Read the ``text`` field of every row, as in a file of refusals.

    Raises:
        DataError: As `read_records`.
    """
    path = str(source)
    texts = []
    for line, row in _sound_rows(path):
        place = Place(path, line)
        if not isinstance(row, dict):
            raise place.error("not_an_object", "Expected a JSON object.", 'Write one {"text": "..."} on every line.')
        texts.append(text(row, "text", place))
    if not texts:
        raise _empty(path)
    return texts


def _open(path: str) -> _Rows:
    if path.startswith(HUB_PREFIX):
        return _hub(path)
    file = Path(path)
    try:
        if not file.exists():
            raise Place(path).error(
                "file_not_found",
                "There is no such file.",
                f"Check the path; a Hub data set is named {HUB_PREFIX}OWNER/NAME.",
            )
        if not file.is_file():
            raise Place(path).error(
                "not_a_file",
                "This is a folder or a device, not a file.",
                f"Name one file in it that ends with {' or '.join(SUFFIXES)}.",
            )
        file.open("rb").close()
    except OSError as error:
        raise Place(path).error(
            "unreadable_file", f"The file cannot be read: {error.strerror}.", "Check its permissions and name."
        ) from error
    if file.suffix.lower() == ".jsonl":
        return _Rows(_jsonl(path))
    if file.suffix.lower() == ".parquet":
        return _parquet(path)
    raise Place(path).error(
        "unknown_suffix",
        f"The suffix {file.suffix!r} is not one that is read.",
        f"Convert it to one JSON object a line (.jsonl) or to Parquet; accepted are {', '.join(SUFFIXES)}.",
    )


def _jsonl(path: str) -> Iterator[tuple[int, object]]:
    with Path(path).open("rb") as file:
        for line, raw in enumerate(file, start=1):
            place = Place(path, line)
            if b"\0" in raw or (line == 1 and raw.startswith(MAGIC)):
                yield (
                    line,
                    place.error(
                        "binary_file",
                        "This is binary or UTF-16, not UTF-8 text.",
                        "Save it as UTF-8 JSONL, or give a Parquet file the suffix .parquet.",
                    ),
                )
                # What follows is no better, and is nobody's rows.
                return
            try:
                content = _decode(raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw, place)
                if content.strip():
                    yield line, _json(content, place)
            except DataError as error:
                yield line, error


def _decode(raw: bytes, place: Place) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise place.error(
            "bad_utf8",
            f"Byte {error.start + 1} of the line (0x{raw[error.start]:02x}) is not UTF-8.",
            "Save the file as UTF-8.",
        ) from None


def _json(content: str, place: Place) -> object:
    try:
        return json.loads(content, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except _DuplicateKeyError as error:
        raise place.error(
            "duplicate_key",
            f"The key {str(error)[:40]!r} occurs twice in one object.",
            "Keep one: which of them counts is not defined.",
            field=ascii(str(error)[:40])[1:-1],
        ) from None
    except json.JSONDecodeError as error:
        raise place.error(
            "bad_json", f"Not JSON: {error.msg} at column {error.pos + 1}.", "Write one JSON object a line."
        ) from None
    except ValueError as error:  # A constant refused below, or an integer longer than Python reads.
        raise place.error("bad_json", f"Not JSON that is read: {error}.", "Write a plain number.") from None
    except RecursionError:
        raise place.error("bad_json", "The JSON is nested too deeply.", "Flatten the row.") from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _DuplicateKeyError(next(key for key, count in counts.items() if count > 1))
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _parquet(path: str) -> _Rows:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)
    except UNREADABLE as error:
        raise _bad_parquet(path, error) from error
    if len(set(names)) < len(names):
        raise Place(path).error("duplicate_key", "Two columns have the same name.", "Rename or drop one.")
    return _Rows(_parquet_rows(path, file, [name for name in names if name in COLUMNS]), names)


def _parquet_rows(path: str, file: pyarrow.parquet.ParquetFile, columns: list[str]) -> Iterator[tuple[int, object]]:
    line = 0
    try:
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                line += 1
                yield line, row
    except UNREADABLE as error:
        raise _bad_parquet(path, error, after=line) from error
    finally:
        file.close()


def _bad_parquet(path: str, error: Exception, after: int = 0) -> DataError:
    return Place(path).error(
        "bad_parquet",
        f"The Parquet file cannot be read{f' after row {after}' if after else ''}: {ascii(str(error)[:200])[1:-1]}.",
        "Write the file again; it is damaged or is no Parquet file.",
    )


def _hub(path: str) -> _Rows:
    # Imported here because it takes seconds and only Hub names need it.
    import datasets  # noqa: PLC0415

    name = path.removeprefix(HUB_PREFIX)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise Place(path).error("bad_hub_name", "This is no Hub data set name.", f"Write {HUB_PREFIX}OWNER/NAME.")
    try:
        table = datasets.load_dataset(name, split=SPLIT)
        columns = list(table.column_names)
        table = table.select_columns([column for column in columns if column in COLUMNS])
    except (*UNREADABLE, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise Place(path).error(
            "hub_unavailable",
            f"The data set or its split {SPLIT!r} cannot be loaded: {ascii(str(error)[:300])[1:-1]}.",
            "Check its name, the network and, for a gated set, the login.",
        ) from error
    return _Rows(enumerate(table, start=1), columns)


def _empty(path: str) -> DataError:
    return Place(path).error("empty_file", "There are no rows.", "Give at least one row.")
