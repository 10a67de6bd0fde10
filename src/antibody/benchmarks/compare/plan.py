"""What a comparison has to do. Each piece is named by a hash of all it depends on, so that equal pieces are done once.

A changed configuration or file therefore changes the names of the pieces it reaches, and of no others: the rest of the
directory stays good. A method's and a preset's defaults are part of a name; labels and settings without influence on a
result are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from antibody.benchmarks.compare.checking import ROWS_OF_ALIGNMENT, ROWS_OF_FINETUNING, all_settings, stages_of
from antibody.benchmarks.compare.config import Comparison, EvaluationRows, Settings
from antibody.benchmarks.compare.document import Document, Place
from antibody.benchmarks.compare.identity import model_identity
from antibody.benchmarks.compare.rows import Library
from antibody.evaluation.tasks import kind_of_task
from antibody.files import sha256, sha256_of, to_json
from antibody.models.run import NO_INFLUENCE

NONE = "none"


@dataclass(frozen=True)
class Stage:
    """One training on the way to an aligned model, or the calibration of its screen.

    Attributes:
        key: Its name.
        parent: The stage before it; None on the base model.
        settings: As written, rows by their names.
        seed: Its seed.
        calibrates: Whether it only calibrates.
    """

    key: str
    parent: str | None
    settings: Settings
    seed: int
    calibrates: bool = False


@dataclass(frozen=True)
class Model:
    """A model that is measured.

    Attributes:
        key: Its name.
        aligned: The stages it comes from, in order; empty for the base model.
        finetune: Settings of the fine-tuning, as written; empty for a model that is not fine-tuned.
        attack: Name of the attack, or "none".
        ratio: Share of harmful rows; None for a model that is not fine-tuned.
        upload: Name of the rows of the user's task; empty likewise.
        task: Name of the task that reads them.
        seed: Of the upload and the fine-tuning.
    """

    key: str
    aligned: tuple[Stage, ...]
    finetune: Settings
    attack: str = NONE
    ratio: float | None = None
    upload: str = ""
    task: str = ""
    seed: int = 0

    @property
    def origin(self) -> str:
        """The aligned model it comes from."""
        return self.aligned[-1].key if self.aligned else ""


@dataclass(frozen=True)
class Cell:
    """One line of the results: a model, measured with one task.

    Attributes:
        key: Its name.
        labels: grid, method, attack, ratio, task, variant and seed, as tables show them.
        model: What is measured.
        task: Name in the configuration's tasks.
    """

    key: str
    labels: dict[str, Any]
    model: Model
    task: str


@dataclass(frozen=True)
class Plan:
    """All pieces by name, each once, seed by seed; of a seed, the models of one alignment follow each other."""

    stages: dict[str, Stage] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    def cells_of(self, model: Model) -> list[Cell]:
        """The cells of a model, each once."""
        return self._by_model[model.key]

    @cached_property
    def _by_model(self) -> dict[str, list[Cell]]:
        cells: dict[str, dict[str, Cell]] = {key: {} for key in self.models}
        for cell in self.cells:
            cells[cell.model.key][cell.key] = cell
        return {key: list(own.values()) for key, own in cells.items()}


def make_plan(document: Document, config: Comparison, library: Library) -> Plan:
    """Lists everything.

    Raises:
        UsageError: Rows are named that do not exist.
        ModelError: The model is a run that is not complete.
    """
    planner = _Planner(document, config, library)
    cells = list(planner.cells())
    plan = Plan(cells=cells)
    order: dict[str, int] = {}
    for cell in cells:
        order.setdefault(cell.model.origin, len(order))
    for cell in sorted(cells, key=lambda cell: (cell.labels["seed"], order[cell.model.origin])):
        plan.models.setdefault(cell.model.key, cell.model)
        for stage in cell.model.aligned:
            plan.stages.setdefault(stage.key, stage)
    return plan


class _Planner:
    def __init__(self, document: Document, config: Comparison, library: Library) -> None:
        self.document, self.config, self.library = document, config, library
        self.base = model_identity(config.model)

    def cells(self) -> Iterator[Cell]:
        yield from self.references()
        for name, grid in self.config.grids.items():
            for label in grid.methods or self.config.methods:
                for seed in self.config.seeds:
                    aligned = self.aligned(label, seed)
                    for attack in grid.attacks:
                        for ratio in grid.ratios:
                            for variant, changed in grid.variants.items():
                                for task in grid.tasks or self.config.tasks:
                                    settings = self.config.finetune | self.config.methods[label].finetune | changed
                                    model = self.tuned(aligned, settings, attack, float(ratio), task, seed)
                                    yield self.cell(model, task, grid=name, method=label, variant=variant, seed=seed)

    def references(self) -> Iterator[Cell]:
        tasks = list(self.config.tasks)
        if "base" in self.config.references:
            for task in tasks:
                yield self.cell(self.untuned(()), task, grid="references", method="Base model", variant="", seed=0)
        if "aligned" in self.config.references:
            for label in self.config.methods:
                for seed in self.config.seeds:
                    model = self.untuned(self.aligned(label, seed))
                    for task in tasks:
                        yield self.cell(model, task, grid="references", method=label, variant="", seed=seed)

    def aligned(self, label: str, seed: int) -> tuple[Stage, ...]:
        """The stages of a method's alignment. A stage with a seed of its own is the same for all seeds."""
        found: list[Stage] = []
        for settings in stages_of(self.document, self.config, label):
            own = int(settings.get("seed", seed))
            rest = {name: value for name, value in settings.items() if name != "seed"}
            found.append(self.stage(found[-1] if found else None, rest, own))
        if self.config.calibrate is not None:
            rows = self.config.calibrate
            settings = {"harmful": rows.harmful, "benign": rows.benign, "refit": rows.refit,
                        "max_length": rows.max_length}  # fmt: skip
            found.append(self.stage(found[-1], settings, found[-1].seed, calibrates=True))
        return tuple(found)

    def stage(self, parent: Stage | None, settings: Settings, seed: int, *, calibrates: bool = False) -> Stage:
        origin = parent.key if parent else self.base
        place: Place = ("calibrate",) if calibrates else ("align",)
        trained = settings if calibrates else all_settings(settings, "align", self.config.model)
        content = self.described(trained, ROWS_OF_ALIGNMENT, place)
        key = _key("stage", origin, content, seed, calibrates)
        return Stage(key, parent.key if parent else None, settings, seed, calibrates)

    def untuned(self, aligned: tuple[Stage, ...]) -> Model:
        return Model(_key("model", aligned[-1].key if aligned else self.base), aligned, {})

    def tuned(
        self, aligned: tuple[Stage, ...], settings: Settings, attack: str, ratio: float, task: str, seed: int
    ) -> Model:
        rows, kind = self.config.tasks[task], self.config.tasks[task].task or task
        key = _key(
            "model",
            aligned[-1].key,
            self.described(all_settings(settings, "finetune", self.config.model), ROWS_OF_FINETUNING, ("finetune",)),
            [attack, ratio, seed, self.config.upload.rows],
            self.library.fingerprint(self.config.upload.harmful, ("upload", "harmful")),
            [kind_of_task(kind), self.library.fingerprint(rows.upload, ("tasks", task, "upload"))],
        )
        return Model(key, aligned, settings, attack, ratio, rows.upload, kind, seed)

    def cell(self, model: Model, task: str, **labels: Any) -> Cell:
        evaluated = self.config.evaluate
        rows = self.config.tasks[task]
        key = _key(
            "cell",
            model.key,
            answers_key(self.library, model, evaluated.prompts, evaluated.max_new_tokens, dtype=evaluated.dtype),
            answers_key(self.library, model, evaluated.safe or "", evaluated.max_new_tokens, dtype=evaluated.dtype),
            [rows.task or task, self.library.fingerprint(rows.test, ("tasks", task, "test"))],
            evaluated.judges,
            *([abilities_key(self.library, model, evaluated)] if evaluated.abilities else []),
        )
        labels |= {"attack": model.attack, "ratio": model.ratio, "task": task}
        return Cell(key, labels, model, task)

    def described(self, settings: Settings, rows: tuple[str, ...], place: Place) -> Settings:
        """Settings that influence a result, with the fingerprints of the rows they name."""
        return {
            name: self.library.fingerprint(value, (*place, name)) if name in rows else value
            for name, value in sorted(settings.items())
            if name not in NO_INFLUENCE
        }


def answers_key(library: Library, model: Model, rows: str, max_new_tokens: int, kind: str = "", *, dtype: str) -> str:
    """The name of a model's answers to some rows, which each kind of task puts as its own question."""
    read = library.fingerprint(rows, ("evaluate",)) if rows else ""
    return _key("answers", model.key, read, max_new_tokens, dtype, kind)


def abilities_key(library: Library, model: Model, evaluated: EvaluationRows) -> str:
    """The name of a model's general abilities. Tasks in a folder are known by their files' content."""
    asked = evaluated.abilities
    assert asked is not None, "there are abilities to name"
    files = sorted(library.folder(asked.folder).glob("*")) if asked.folder is not None else []
    content = [(file.name, sha256(file)) for file in files if file.is_file()]
    return _key("abilities", model.key, asked.tasks, asked.rows, content, evaluated.dtype)


def _key(kind: str, *content: object) -> str:
    return sha256_of(to_json([kind, *content]))[:16]
