"""The rows that a comparison names: read, chosen, and written where a stage wants a file."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from itertools import starmap
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from antibody.benchmarks.compare.config import RowsFields
from antibody.benchmarks.compare.document import Document, Place
from antibody.data.mixes import with_unique_ids
from antibody.data.reading import HUB_PREFIX
from antibody.data.records import Record
from antibody.data.sources import EMBEDDED, load_prompts, load_records, load_refusals
from antibody.data.writing import write_records
from antibody.errors import DataError
from antibody.evaluation.tasks import make_task
from antibody.evaluation.tasks.rows import TaskRow, read_rows
from antibody.files import sha256, sha256_of, to_json, write_jsonl

Reader = Callable[[str], list[Record]]
Chosen = TypeVar("Chosen")


class Library:
    """All rows of a comparison by name. Nothing is read before it is asked for.

    Args:
        document: For errors.
        rows: The file's entries.
        data: The folder that relative paths start from.
        folder: Where files for the stages go.
    """

    def __init__(self, document: Document, rows: dict[str, RowsFields], data: Path, folder: Path) -> None:
        self._document = document
        self._rows = rows
        self._data = data
        self._folder = folder
        self._fingerprints: dict[str, str] = {}
        self._hash = cache(_hash)

    def fingerprint(self, name: str, place: Place = ("rows",)) -> str:
        """What identifies rows without reading the Hub: their files' hashes and how they are chosen.

        Args:
            name: Of an entry, or a source.
            place: Where the configuration names it.

        Raises:
            UsageError: There is neither such an entry nor such a file.
        """
        if name not in self._fingerprints:
            self._fingerprints[name] = self._fingerprint(name, place, ())
        return self._fingerprints[name]

    @property
    def asked(self) -> dict[str, str]:
        """The fingerprints of the entries that were asked for."""
        return {name: found for name, found in self._fingerprints.items() if name in self._rows}

    def records(self, name: str) -> list[Record]:
        """Prompts with responses."""
        return self._chosen(name, lambda source: load_records(source).records)

    def prompts(self, name: str) -> list[Record]:
        """Prompts, with or without responses."""
        return self._chosen(name, load_prompts)

    def task(self, name: str, task: str) -> list[Record]:
        """Rows of a task."""

        def read(source: str) -> list[Record]:
            return load_records(source).records if source.startswith(EMBEDDED) else make_task(task).records(source)

        return self._chosen(name, read)

    def file(self, name: str) -> str:
        """The path of a file that holds `records`."""
        path = self._path(name)
        if not path.exists():
            write_records(path, self.records(name))
        return str(path)

    def refusals(self, name: str) -> str:
        """The path of a file with a ``text`` a line."""
        path = self._path(name)
        if not path.exists():
            write_jsonl(path, [{"text": text} for text in self._texts(name)])
        return str(path)

    def on_hub(self, name: str) -> bool:
        """Whether any of the rows come from the Hub."""
        return any(source.startswith(HUB_PREFIX) for source in self._sources(name))

    def most(self, name: str) -> int | None:
        """How many rows an entry takes at most; None where it does not say."""
        entry = self._rows.get(name)
        return None if entry is None else entry.draw or entry.first

    def folder(self, name: str) -> Path:
        """A folder in the data folder."""
        return self._data / name

    def elsewhere(self, folder: Path) -> "Library":
        """The same rows, whose files go into another folder."""
        return Library(self._document, self._rows, self._data, folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self.fingerprint(name)}.jsonl"

    def _texts(self, name: str) -> list[str]:
        entry = self._rows.get(name)
        if entry is None:
            return load_refusals(self._place(name))
        return _drawn(entry, [text for each in entry.source for text in self._texts(each)])

    def _sources(self, name: str) -> list[str]:
        """The files behind rows, at whatever depth."""
        entry = self._rows.get(name)
        if entry is None:
            return [self._place(name)]
        return [source for each in entry.source for source in self._sources(each)]

    def _chosen(self, name: str, read: Reader) -> list[Record]:
        entry = self._rows.get(name)
        if entry is None:
            return read(self._place(name))
        found: list[Record] = []
        for each in entry.source:
            if each in self._rows:
                found += self._chosen(each, read)
            else:
                found += read(self._reshaped(entry, self._place(each)) if entry.reshapes else self._place(each))
        chosen = _selected(entry, with_unique_ids(found))
        if not chosen:
            raise DataError(
                f"No row is left of `{name}`.",
                hint="See its entry under `rows` for what it leaves out.",
                code="no_rows",
            )
        return chosen

    def _place(self, source: str) -> str:
        """A source as the readers take it."""
        return source if source.startswith((EMBEDDED, HUB_PREFIX)) else str(self._data / source)

    def _reshaped(self, entry: RowsFields, source: str) -> str:
        key = sha256_of([source, self._hash(source), entry.split, entry.subset, entry.fields, entry.names, entry.where])
        path = self._folder / f"source-{key[:16]}.jsonl"
        if not path.exists():
            rows = [row for row in _raw(source, entry) if _wanted(entry, row.fields)]
            write_jsonl(path, [_reshape(entry, row, source) for row in rows])
        return str(path)

    def _fingerprint(self, name: str, place: Place, within: tuple[str, ...]) -> str:
        if name not in self._rows:
            source = self._place(name)
            if not source.startswith((EMBEDDED, HUB_PREFIX)) and not Path(source).is_file():
                raise self._document.error(
                    place,
                    f"There are no rows {name!r}, and no file {source}.",
                    "Mend the name, or give the folder of the files by --data.",
                )
            return self._hash(source)
        if name in within:
            raise self._document.error(("rows", name, "from"), f"{name} is made of itself.", "Take it out.")
        entry = self._rows[name]
        if entry.reshapes and any(each in self._rows for each in entry.source):
            raise self._document.error(
                ("rows", name, "from"),
                f"{name} reshapes rows of another entry; fields, names, where, split and subset read files.",
                "Give them in the entry that names the file.",
            )
        described = {key: value for key, value in asdict(entry).items() if key != "source"}
        inside = ("rows", name, "from")
        sources = [self._fingerprint(each, inside, (*within, name)) for each in entry.source]
        return sha256_of(to_json([described, sources]))[:16]


def _hash(source: str) -> str:
    if source.startswith(HUB_PREFIX):
        return sha256_of(source)[:16]
    if source.startswith(EMBEDDED):
        name = source.removeprefix(EMBEDDED)
        content: object = load_refusals(source) if name.startswith("refusals") else load_records(source).sha256
        return sha256_of([source, content])[:16]
    return sha256(Path(source))[:16]


def _selected(entry: RowsFields, records: list[Record]) -> list[Record]:
    kept = [
        record
        for record in records
        if (entry.harmful is None or record.harmful is not (not entry.harmful))
        and (entry.category is None or record.category == entry.category)
        and (entry.not_category is None or record.category != entry.not_category)
        and (entry.longest is None or len(record.request) + len(record.response) <= entry.longest)
    ]
    return _drawn(entry, kept)


def _drawn(entry: RowsFields, rows: list[Chosen]) -> list[Chosen]:
    kept = rows[entry.skip :][: entry.first]
    if entry.draw is not None and entry.draw < len(kept):
        kept = [kept[index] for index in sorted(Random(0).sample(range(len(kept)), entry.draw))]
    return kept


def _wanted(entry: RowsFields, row: dict[str, Any]) -> bool:
    return all(row.get(field) == value for field, value in entry.where.items())


def _reshape(entry: RowsFields, row: TaskRow, source: str) -> dict[str, Any]:
    given = row.fields
    for field in [*entry.fields.values(), *(name for name in entry.names if name not in entry.fields)]:
        if field not in given:
            raise DataError(
                f"The row has no field {field!r}, but {', '.join(given)}.",
                hint="Mend `fields` and `names` under `rows`.",
                code="missing_field",
                path=source,
                line=row.line,
                field=field,
            )
    kept = {new: given[old] for new, old in entry.fields.items()} if entry.fields else dict(given)
    for field, words in entry.names.items():
        if not isinstance(kept[field], int) or not 0 <= kept[field] < len(words):
            raise DataError(
                f"{kept[field]!r} is not a number below {len(words)}.",
                hint=f"Give as many words under `names.{field}` as there are labels.",
                code="bad_field",
                path=source,
                line=row.line,
                field=field,
            )
        kept[field] = words[kept[field]]
    return kept


def _raw(source: str, entry: RowsFields) -> Iterator[TaskRow]:
    """A source's rows as they are, numbered from 1."""
    if source.startswith(HUB_PREFIX):
        # Imported here because it takes seconds and only Hub names need it.
        import datasets  # noqa: PLC0415

        try:
            rows = datasets.load_dataset(source.removeprefix(HUB_PREFIX), entry.subset, split=entry.split)
            yield from starmap(TaskRow, enumerate(rows, start=1))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"The data set, its subset or split {entry.split!r} cannot be loaded: {str(error)[:300]}.",
                hint="Check its name, the network and, for a gated set, the login.",
                code="hub_unavailable",
                path=source,
            ) from error
    elif source.endswith(".parquet"):
        try:
            yield from starmap(TaskRow, enumerate(pyarrow.parquet.read_table(source).to_pylist(), start=1))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"The Parquet file cannot be read: {error}.", hint="Write it anew.", code="bad_parquet", path=source
            ) from error
    else:
        yield from read_rows(Path(source), [], hint="Write one JSON object a line.")
