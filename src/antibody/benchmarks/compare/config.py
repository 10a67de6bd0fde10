"""What a comparison's YAML file holds. docs/compare.md explains it by example."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from antibody.names import Dtype

FORBID = ConfigDict(extra="forbid")
Settings = dict[str, Any]


def _source(value: Any) -> Any:
    """``NAME`` and ``[NAME, NAME]`` are short for ``{from: ...}``."""
    if isinstance(value, str | list):
        value = {"from": value}
    if isinstance(value, dict) and isinstance(value.get("from"), str):
        value = value | {"from": [value["from"]]}
    return value


@dataclass(frozen=True, kw_only=True)
class RowsFields:
    """Rows by name: where they come from and which of them.

    Attributes:
        source: ``from``: names of other rows, files in the data folder, parts of the embedded corpus or Hub data sets.
        split: Of a Hub data set.
        subset: Of a Hub data set that has several.
        fields: New names of a file's fields, by which other fields are dropped: ``{instruction: question}``.
        names: Words for a field's numbers: ``{label: [negative, positive]}``.
        where: Values that fields of the file must have.
        harmful: Keep rows labelled so, or not at all.
        category: Keep rows of this category.
        not_category: Leave out rows of this category.
        longest: Most characters of request and response.
        skip: Rows passed over at the start.
        first: Rows taken then.
        draw: Rows drawn of these, always the same, in order.
    """

    __pydantic_config__ = FORBID

    source: Annotated[list[str], Field(alias="from", min_length=1)]
    split: str = "train"
    subset: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    harmful: bool | None = None
    category: str | None = None
    not_category: str | None = None
    longest: Annotated[int, Field(ge=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    first: Annotated[int, Field(ge=1)] | None = None
    draw: Annotated[int, Field(ge=1)] | None = None

    @property
    def reshapes(self) -> bool:
        """Whether the file's own rows are changed before they are read."""
        return bool(self.fields or self.names or self.where or self.subset or self.split != "train")


Rows = Annotated[RowsFields, BeforeValidator(_source)]


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """A user's task.

    Attributes:
        upload: Rows that users train on.
        test: Rows that are answered.
        task: Name of the task, where it is not that of this entry.
    """

    __pydantic_config__ = FORBID

    upload: str
    test: str
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class UploadRows:
    """What users and attackers send.

    Attributes:
        harmful: Harmful prompts answered harmfully.
        rows: Rows of an upload.
    """

    __pydantic_config__ = FORBID

    harmful: str
    rows: Annotated[int, Field(ge=1)] = 200


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """General abilities, by tasks of lm-eval.

    Attributes:
        tasks: Their names.
        rows: The first so many rows of each; all by default.
        folder: YAML files of further tasks, in the data folder.
    """

    __pydantic_config__ = FORBID

    tasks: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[int, Field(ge=1)] | None = None
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """What every model is asked and who reads the answers.

    Attributes:
        prompts: Harmful prompts.
        safe: Safe prompts that look unsafe; none by default.
        judges: The first one's harmful score is the table's.
        abilities: What else every model is asked, to see what it can still do; nothing by default.
        max_new_tokens: Longest answer to a harmful or safe prompt.
        batch_size: Prompts decoded together.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
    """

    __pydantic_config__ = FORBID

    prompts: str
    safe: str | None = None
    judges: Annotated[list[str], Field(min_length=1)] = field(default_factory=lambda: ["embedded"])
    abilities: Abilities | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    batch_size: Annotated[int, Field(ge=1)] = 32
    dtype: Dtype = "auto"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Rows that every aligned model's screen is calibrated on anew, see `antibody calibrate`."""

    __pydantic_config__ = FORBID

    harmful: str
    benign: str
    refit: bool = False
    max_length: Annotated[int, Field(ge=1)] = 256


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A defence: how a model is aligned, and how a user's rows are trained on.

    Attributes:
        align: The name of one of `alignments`, a stage, or a list of both.
        finetune: The method and its settings.
    """

    __pydantic_config__ = FORBID

    align: Any
    finetune: Settings


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is crossed with the seeds. Cells that two grids share are measured once.

    Attributes:
        methods: Names in `methods`; all by default.
        attacks: Names of attacks.
        ratios: Shares of harmful rows.
        tasks: Names in `tasks`; all by default.
        variants: What an attacker or user may vary, by name: settings of the fine-tuning, such as a learning rate.
    """

    __pydantic_config__ = FORBID

    methods: list[str] | None = None
    attacks: list[str] = field(default_factory=lambda: ["mix"])
    ratios: list[Annotated[float, Field(ge=0, le=1)]]
    tasks: list[str] | None = None
    variants: dict[str, Settings] = field(default_factory=lambda: {"": {}})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A whole comparison.

    Attributes:
        model: smollm2-135m, a Hub id or a local folder.
        seeds: Of adapters, draws and orders.
        rows: Rows by name.
        align: Settings that all alignments share.
        finetune: Settings that all fine-tunings share.
        alignments: Alignments by name, so that methods can share them.
        calibrate: How every aligned model's screen is calibrated anew; not at all by default.
        methods: The defences by their label.
        upload: What users and attackers send.
        tasks: Users' tasks, by the task's name or one of your own.
        evaluate: What every model is asked.
        grids: What is crossed.
        references: The models before any fine-tuning that are measured too: base, aligned.
    """

    __pydantic_config__ = FORBID

    model: str
    seeds: Annotated[list[int], Field(min_length=1)]
    rows: dict[str, Rows]
    align: Settings = field(default_factory=dict)
    finetune: Settings = field(default_factory=dict)
    alignments: dict[str, Any] = field(default_factory=dict)
    calibrate: Calibration | None = None
    methods: Annotated[dict[str, Pair], Field(min_length=1)]
    upload: UploadRows
    tasks: Annotated[dict[str, TaskRows], Field(min_length=1)]
    evaluate: EvaluationRows
    grids: Annotated[dict[str, Grid], Field(min_length=1)]
    references: list[str] = field(default_factory=list)
