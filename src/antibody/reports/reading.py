"""Reads what runs leave on disk, as JSON: a run directory, or a directory of runs with a `summary.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antibody.errors import DataError, UsageError

Fields = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One folder of `evaluation/`: its measures, and the answers and verdicts they were counted from."""

    name: str
    metrics: Fields
    generations: list[Fields]
    verdicts: dict[str, Fields]

    @property
    def embedded(self) -> bool:
        """Whether the prompts are from the embedded corpus."""
        return str(self.metrics.get("source")).startswith("embedded:")


@dataclass(frozen=True)
class Run:
    """One run directory. Whatever is missing is empty; `manifest` is empty for an evaluated base model.

    Attributes:
        embedded: Every row that it and the runs before it were trained on comes from the embedded corpus, whose harmful
            answers are stand-ins.
        problems: Files or lines that exist and could not be read, each in one sentence.
    """

    path: Path
    manifest: Fields = field(default_factory=dict)
    metrics: list[Fields] = field(default_factory=list)
    audit: list[Fields] = field(default_factory=list)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    embedded: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model(self) -> str:
        return str(mapping(self.manifest.get("model")).get("name") or "unknown model")

    @property
    def data(self) -> dict[str, Fields]:
        return _data(self.manifest)

    @property
    def baseline(self) -> bool:
        """Whether a method to compare with trained it, and not Antibody."""
        return bool(self.manifest.get("method", "antibody") != "antibody")

    @property
    def gate(self) -> str:
        """The gate of a fine-tuning run: off, mask or anchor. Off for other runs, and for those from before gates."""
        settings = mapping(self.manifest.get("settings"))
        if self.manifest.get("kind") != "finetuning" or self.baseline or "gate" not in settings:
            return "off"
        # A run whose user chose none has the default.
        return str(settings["gate"] or "anchor")

    @property
    def gate_threshold(self) -> float | None:
        return number(mapping(self.manifest.get("settings")), "gate_threshold")


@dataclass(frozen=True)
class Row:
    """One row of `summary.json`: how a model was made and what it scored, in percent, `None` where not measured."""

    number: int
    name: str
    alignment: str
    finetuning: str
    poison_ratio: float | None
    harmful_score: float | None
    refusal_rate: float | None
    over_refusal: float | None
    task_accuracy: float | None
    score_auroc: float | None
    run: Run | None


@dataclass(frozen=True)
class Comparison:
    """A directory of runs and the table over them."""

    path: Path
    model: str
    seed: object
    seconds: float | None
    rows: list[Row]
    problems: list[str]

    @property
    def runs(self) -> list[Run]:
        """Every run of the table once, in the table's order."""
        return list({row.run.path: row.run for row in self.rows if row.run is not None}.values())

    def find(self, *, alignment: str, finetuning: str, poisoned: bool) -> Row | None:
        """The first row made this way."""
        for row in self.rows:
            if (row.alignment, row.finetuning, bool(row.poison_ratio)) == (alignment, finetuning, poisoned):
                return row
        return None


def read(path: Path) -> Run | Comparison:
    """Reads a run directory, or a directory of runs.

    Raises:
        UsageError: `not_a_run`, when the path holds neither `summary.json` nor `manifest.json`.
        DataError: `bad_json`, when the file that makes it a run is not a JSON object.
    """
    if (path / "summary.json").is_file():
        return _read_comparison(path)
    if (path / "manifest.json").is_file():
        return read_run(path)
    raise UsageError(
        f"{path} is not a finished run (no manifest.json), demo (no summary.json) or comparison (no results.json)."
        if path.exists()
        else f"There is no {path}.",
        hint="Name what `antibody demo`, `compare`, `align` or `finetune` made. A run is finished by --resume.",
        code="not_a_run",
    )


def read_run(path: Path) -> Run:
    """Reads a run directory; without `manifest.json` only what else is there, as for a base model."""
    problems: list[str] = []
    evaluations = {}
    for folder in sorted(path.glob("evaluation/*/")):
        verdicts = _read_lines(folder / "verdicts.jsonl", problems)
        evaluations[folder.name] = Evaluation(
            name=folder.name,
            metrics=_read_measures(folder / "metrics.json", problems),
            generations=_read_lines(folder / "generations.jsonl", problems),
            verdicts={str(verdict.get("id")): verdict for verdict in verdicts},
        )
    manifest = _read_object(path / "manifest.json") if (path / "manifest.json").is_file() else {}
    return Run(
        path=path,
        manifest=manifest,
        metrics=_read_lines(path / "metrics.jsonl", problems),
        audit=_read_lines(path / "audit.jsonl", problems),
        evaluations=evaluations,
        embedded=_is_embedded(path, manifest),
        problems=problems,
    )


def mapping(value: object) -> Fields:
    """The value if it is a JSON object, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def number(fields: Mapping[str, Any], key: str) -> float | None:
    """A finite number, or `None`: a missing key, null and NaN all mean that nothing was measured."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _data(manifest: Fields) -> dict[str, Fields]:
    return {name: mapping(source) for name, source in mapping(manifest.get("data")).items()}


def _is_embedded(path: Path, manifest: Fields, *, generations: int = 8) -> bool:
    """Whether this run and its parents saw the embedded corpus alone. What cannot be told counts as no."""
    parent = Path(str(manifest["parent"])) if manifest.get("parent") else None
    data = {name: str(source.get("path")) for name, source in _data(manifest).items()}
    if parent and "anchors" in data and Path(data["anchors"]) == parent / "anchors.jsonl":
        # Rows of the run before are as that run's data, which is looked at below.
        del data["anchors"]
    if not data or not all(source.startswith("embedded:") for source in data.values()) or not generations:
        return False
    if parent is None:
        return True
    # A directory of runs may have been moved as a whole since its runs were made.
    for place in (path.parent / parent.name, parent):
        if (place / "manifest.json").is_file():
            return _is_embedded(place, _read_object(place / "manifest.json"), generations=generations - 1)
    return False


def _read_comparison(path: Path) -> Comparison:
    summary = _read_object(path / "summary.json")
    problems: list[str] = []
    runs: dict[Path, Run] = {}
    rows = []
    listed = summary.get("rows")
    for position, content in enumerate(listed if isinstance(listed, list) else [], start=1):
        fields = mapping(content)
        stages = str(fields.get("alignment") or "none"), str(fields.get("finetuning") or "none")
        # The base model has no run of its own, only a folder of evaluations.
        name = fields.get("run") or ("base" if stages == ("none", "none") and (path / "base").is_dir() else None)
        if name is not None and not (path / str(name)).is_dir():
            problems.append(f"The run directory {name} is missing.")
            name = None
        if name is not None and path / str(name) not in runs:
            runs[path / str(name)] = run = read_run(path / str(name))
            problems += [f"{name}: {problem}" for problem in run.problems]
        rows.append(
            Row(
                number=position,
                name=str(fields.get("name") or name or "unnamed"),
                alignment=stages[0],
                finetuning=stages[1],
                poison_ratio=number(fields, "poison_ratio"),
                harmful_score=number(fields, "harmful_score"),
                refusal_rate=number(fields, "refusal_rate"),
                over_refusal=number(fields, "over_refusal"),
                task_accuracy=number(fields, "task_accuracy"),
                score_auroc=number(fields, "score_auroc"),
                run=runs[path / str(name)] if name is not None else None,
            )
        )
    return Comparison(
        path=path,
        model=str(summary.get("model") or "unknown model"),
        seed=summary.get("seed"),
        seconds=number(summary, "seconds"),
        rows=rows,
        problems=problems,
    )


def _read_object(path: Path) -> Fields:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"This is not JSON: {error}.", hint="Make the run again.", code="bad_json", path=path
        ) from error
    if not isinstance(content, dict):
        raise DataError("This is not a JSON object.", hint="Make the run again.", code="bad_json", path=path)
    return content


def _read_measures(path: Path, problems: list[str]) -> Fields:
    if not path.is_file():
        problems.append(f"evaluation/{path.parent.name}/{path.name} is missing.")
        return {}
    try:
        return _read_object(path)
    except DataError as error:
        problems.append(error.message)
        return {}


def _read_lines(path: Path, problems: list[str]) -> list[Fields]:
    """The objects of a JSON Lines file. An interrupted run may leave half a line, which is counted as a problem."""
    if not path.is_file():
        return []
    objects: list[Fields] = []
    unreadable = 0
    # Only "\n" ends a line here: `splitlines` would also cut a string at U+2028.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if isinstance(content, dict):
            objects.append(content)
        else:
            unreadable += 1
    if unreadable:
        problems.append(f"{path.name} has {unreadable} unreadable line{'s' if unreadable > 1 else ''}.")
    return objects
