"""Reading a comparison's file: everything that is wrong in it is said before a model is loaded."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from antibody.attacks import ATTACKS
from antibody.benchmarks.compare.config import Comparison, Grid, Settings
from antibody.benchmarks.compare.document import Document, Place
from antibody.errors import UsageError
from antibody.evaluation.judges import JUDGES
from antibody.evaluation.tasks import make_task
from antibody.models.run import base_name
from antibody.training.methods import ALIGNMENTS, FINETUNINGS
from antibody.training.presets import preset_for
from antibody.training.settings import AlignmentSettings, FinetuningSettings, TrainingSettings

Training = TypeVar("Training", bound=TrainingSettings)

# What the grid decides itself.
OWN = ("model", "output", "resume", "force")
OWN_OF_FINETUNING = ("data", "data_format", "seed", "shuffle")
# Settings that name rows.
ROWS_OF_ALIGNMENT = ("refusals", "harmful", "benign")
ROWS_OF_FINETUNING = ("refusals", "anchors")
# An adapter's, which goes on being trained: only the first stage of all chooses it.
SHAPE = ("lora_r", "lora_alpha", "target_modules")
# Of an entry of rows, what lines of text can be chosen by.
OF_TEXTS = ("source", "skip", "first", "draw")


def read_config(path: Path) -> tuple[Document, Comparison]:
    """Reads and checks a comparison's file.

    Raises:
        UsageError: Names the file, the line and the field.
    """
    document = Document(path)
    try:
        config = TypeAdapter(Comparison).validate_python(document.content)
    except ValidationError as error:
        raise _first(document, (), error) from error
    _check_names(document, config)
    return document, config


def stages_of(document: Document, config: Comparison, label: str) -> list[Settings]:
    """The alignment stages of a method, each with the settings that all share, of which the first has the shape.

    Raises:
        UsageError: A stage is not one, or an alignment names itself.
    """
    return _stages(document, config, config.methods[label].align, ("methods", label, "align"), (), first=True)


def alignment_settings(settings: Settings, *, model: str, output: Path, **rest: Any) -> AlignmentSettings:
    """A stage's settings as `align` takes them.

    Raises:
        ValidationError, UsageError: They are not.
    """
    return _typed(AlignmentSettings, settings | rest | {"model": model, "output": output})


def finetuning_settings(settings: Settings, *, model: str, output: Path, data: str, **rest: Any) -> FinetuningSettings:
    """A fine-tuning's settings as `finetune` takes them.

    Raises:
        ValidationError, UsageError: They are not.
    """
    return _typed(FinetuningSettings, settings | rest | {"model": model, "output": output, "data": data})


def all_settings(settings: Settings, stage: str, model: str) -> dict[str, Any]:
    """What a stage trains with: all options of its method, and of its preset what is not written.

    Args:
        settings: As written.
        stage: ``align`` or ``finetune``.
        model: The comparison's base model, which says what preset ``auto`` is.

    Raises:
        ValidationError, UsageError: They are no settings of the stage.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if stage == "align":
        checked: TrainingSettings = alignment_settings(given, model=model, output=Path("o"))
        methods = ALIGNMENTS
    else:
        checked = finetuning_settings(given, model=model, output=Path("o"), data="d")
        methods = FINETUNINGS
    preset = preset_for(base_name(model), checked.preset)
    trained = preset.alignment if stage == "align" else preset.finetuning
    length = {"steps": trained.steps} if trained.steps is not None else {"epochs": float(trained.epochs or 0)}
    defaults = {
        "lora_r": preset.lora.r,
        "lora_alpha": preset.lora.alpha,
        "target_modules": preset.lora.target_modules,
        "learning_rate": trained.learning_rate,
        "batch_size": trained.batch_size,
        **({} if given.keys() & {"steps", "epochs"} else length),
    }
    # As the settings have them: 1e-5 is text in YAML.
    written = {name: getattr(checked, name) for name in given if name not in {*checked.named, "preset"}}
    return defaults | written | {"options": trained.options_of(checked, methods)}


def _typed(kind: type[Training], settings: Settings) -> Training:
    unknown = settings.keys() - {each.name for each in fields(kind)}
    if unknown:
        raise UsageError(
            f"{sorted(unknown)[0]!r} is not a setting.",
            hint=f"See `antibody {'align' if kind is AlignmentSettings else 'finetune'} --help` for all of them.",
            code="bad_config",
        )
    return TypeAdapter(kind).validate_python(settings)


def _stages(
    document: Document, config: Comparison, value: Any, place: Place, within: tuple[str, ...], *, first: bool
) -> list[Settings]:
    if isinstance(value, list) and value:
        return [
            stage
            for index, item in enumerate(value)
            for stage in _stages(document, config, item, (*place, index), within, first=first and not index)
        ]
    if isinstance(value, str):
        if value not in config.alignments:
            raise document.error(place, f"There is no alignment {value!r}.", _use(config.alignments))
        if value in within:
            raise document.error(place, f"The alignment {value!r} begins with itself.", "Take it out.")
        place = ("alignments", value)
        return _stages(document, config, config.alignments[value], place, (*within, value), first=first)
    if not isinstance(value, dict) or "method" not in value:
        raise document.error(
            place, "This is no alignment.", "Write {method: NAME, ...}, the name of one of `alignments`, or a list."
        )
    settings = config.align | value
    if not first:
        _refuse_shape(document, place, value)
        settings = {name: given for name, given in settings.items() if name not in SHAPE}
    _check_settings(document, config, settings, place, value, "align")
    return [settings]


def _check_names(document: Document, config: Comparison) -> None:
    _refuse_shape(document, ("finetune",), config.finetune)
    for label, pair in config.methods.items():
        stages_of(document, config, label)
        place: Place = ("methods", label, "finetune")
        if "method" not in pair.finetune:
            raise document.error(place, "The method is missing.", "Write {method: NAME}.")
        _refuse_shape(document, place, pair.finetune)
        _check_settings(document, config, config.finetune | pair.finetune, place, pair.finetune, "finetune")
        _check_screen(document, config, label, place, {})
    for name, task in config.tasks.items():
        try:
            make_task(task.task or name)
        except UsageError as error:
            raise document.error(("tasks", name), error.message, error.hint) from error
    for index, judge in enumerate(config.evaluate.judges):
        if judge.partition(":")[0] not in JUDGES:
            raise document.error(("evaluate", "judges", index), f"There is no judge {judge!r}.", _use(JUDGES))
    for index, reference in enumerate(config.references):
        if reference not in {"base", "aligned"}:
            raise document.error(("references", index), f"There is no model {reference!r}.", "Use base or aligned.")
    for name, grid in config.grids.items():
        _check_grid(document, config, name, grid)


def _check_grid(document: Document, config: Comparison, name: str, grid: Grid) -> None:
    place = ("grids", name)
    for key, known in (("methods", config.methods), ("attacks", ATTACKS), ("tasks", config.tasks)):
        for index, each in enumerate(getattr(grid, key) or []):
            if each not in known:
                raise document.error((*place, key, index), f"There is no {key[:-1]} {each!r}.", _use(known))
    for attack in grid.attacks:
        for index, ratio in enumerate(grid.ratios):
            if ratio > ATTACKS[attack].most:
                most = ATTACKS[attack].most
                raise document.error(
                    (*place, "ratios", index),
                    f"{attack} makes no upload with a ratio of {ratio}.",
                    f"Use at most {most:.3g}.",
                )
    for variant, changed in grid.variants.items():
        _refuse_shape(document, (*place, "variants", variant), changed)
        for label in grid.methods or config.methods:
            whole = config.finetune | config.methods[label].finetune | changed
            _check_settings(document, config, whole, (*place, "variants", variant), changed, "finetune")
            _check_screen(document, config, label, (*place, "variants", variant), changed)


def _check_settings(
    document: Document,
    config: Comparison,
    settings: Settings,
    place: Place,
    written: Settings,
    stage: str,
) -> None:
    """Everything that is wrong before a model is loaded."""
    if str(settings.get("refusals")) in config.rows:
        _check_texts(document, config, str(settings["refusals"]))
    for key in [*OWN, *(OWN_OF_FINETUNING if stage == "finetune" else ())]:
        if key in settings:
            where = (*place, key) if key in written else (stage, key)
            raise document.error(where, f"{key} is decided by the grid.", "Leave it out.")
    try:
        all_settings(settings, stage, config.model)
    except ValidationError as error:
        raise _first(document, place, error, shared=stage, written=written) from error
    except UsageError as error:
        # The message names the setting, the place the entry it stands in.
        said = [key for key in written if repr(key) in error.message or f"{key}=" in error.message]
        # A method that does not take an option is named too.
        named = next((key for key in sorted(said, key=lambda key: key == "method")), None)
        raise document.error((*place, named) if named else place, error.message, error.hint) from error


def _refuse_shape(document: Document, place: Place, written: Settings) -> None:
    for name in SHAPE:
        if written.get(name) is not None:
            raise document.error(
                (*place, name), "The adapter goes on being trained, so its shape cannot be chosen.",
                "Choose it in the first stage of an alignment.",
            )  # fmt: skip


def _check_screen(document: Document, config: Comparison, label: str, place: Place, changed: Settings) -> None:
    """A gate judges by the screen of the last stage, or by that of a calibration that makes one."""
    if stages_of(document, config, label)[-1].get("screen") is not False:
        return
    made = config.calibrate is not None and config.calibrate.refit
    settings = config.finetune | config.methods[label].finetune | changed
    gate = all_settings(settings, "finetune", config.model)["options"].get("gate", "off")
    if gate != "off" and not made:
        raise document.error(
            place, f"The gate {gate} judges rows by a screen, and its alignment makes none.", "Leave out screen: false."
        )
    if config.calibrate is not None and not made:
        raise document.error(
            ("calibrate",),
            f"The alignment of {label} makes no screen to calibrate.",
            "Write refit: true, which makes one.",
        )


def _check_texts(document: Document, config: Comparison, name: str, within: tuple[str, ...] = ()) -> None:
    """Refusals are lines of text, at whatever depth."""
    entry = config.rows[name]
    for each in fields(entry):
        if each.name not in OF_TEXTS and getattr(entry, each.name) not in (None, "train", {}):
            raise document.error(
                ("rows", name, each.name), f"{each.name} does not choose among refusals, which are lines of text.",
                "Use skip, first or draw.",
            )  # fmt: skip
    for source in entry.source:
        # One that is made of itself is refused where it is read.
        if source in config.rows and source not in within:
            _check_texts(document, config, source, (*within, name))


def _first(
    document: Document,
    place: Place,
    error: ValidationError,
    *,
    shared: str = "",
    written: Settings | None = None,
) -> UsageError:
    found = error.errors()[0]
    inside = tuple(found["loc"])
    if written is not None and inside and inside[0] not in written:
        place = (shared,)
    hint = {
        "extra_forbidden": "Take it out, or mend its name: docs/compare.md lists all.",
        "unexpected_keyword_argument": "Take it out, or mend its name: docs/compare.md lists all.",
        "missing": "Add it.",
        "missing_argument": "Add it.",
    }.get(found["type"], "Mend the value.")
    message = "There is no such field" if found["type"].startswith(("extra", "unexpected")) else found["msg"]
    return document.error((*place, *inside), f"{message}.", hint)


def _use(known: Any) -> str:
    return f"Use one of {', '.join(known)}." if known else "None is defined."
