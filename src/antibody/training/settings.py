"""What a user may choose for each stage. These are the options of the command line, and all of a run's config.yaml."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from antibody.errors import UsageError
from antibody.names import Average, Dtype, Gate, Rule, Score

POSITIVE = (
    "steps",
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "micro_batch_size",
    "learning_rate",
    "max_length",
    "lora_r",
    "lora_alpha",
    "save_steps",
)


def refuse_not_positive(settings: object, names: Iterable[str]) -> None:
    """Refuses named options that are given and are 0, less, or not a number.

    Raises:
        UsageError: ``out_of_range``.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name}={value} is not positive.", hint="Use more than 0.", code="out_of_range")


class Named(Protocol):
    """Holds options of methods in fields of their own, None where they are not chosen.

    Attributes:
        named: The fields' names.
    """

    named: ClassVar[tuple[str, ...]]


def chosen_options(holder: Named, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, with those of the holder's fields that are chosen.

    Raises:
        UsageError: ``conflict``, where one was chosen twice.
    """
    given = dict(options)
    for name in holder.named:
        value = getattr(holder, name)
        if value is not None and given.setdefault(name, value) != value:
            raise UsageError(
                f"{name} is given twice: {value} and, in options, {given[name]}.",
                hint="Give it once.",
                code="conflict",
            )
    return given


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Options that both stages share.

    Attributes:
        model: smollm2-135m, a Hub id, a local folder, or the directory of a run to go on from.
        output: The run directory to make.
        method: antibody, or a baseline: sft; in stage 1 booster, vaccine or repnoise; in stage 2 lisa, safeinstr,
            constrained_sft or moderation.
        options: Options of the method by name, as in --options.rho 2; default: those of docs/methods.md.
        preset: Adapter and training length: paper, small, or auto (small for the bundled model).
        steps: Optimiser steps; default from the preset.
        epochs: Passes over the data, instead of steps.
        batch_size: Rows of one optimiser step; default from the preset.
        gradient_accumulation_steps: Loader batches that make up a step. Changes memory, not the result.
        micro_batch_size: Rows in one forward pass. Changes memory, not the result.
        learning_rate: AdamW's; default from the preset.
        weight_decay: AdamW's.
        max_length: Most tokens of prompt and response; a longer response is cut.
        lora_r: Rank of a new adapter; default from the preset.
        lora_alpha: Scale of a new adapter; default from the preset.
        target_modules: Layers that a new adapter changes; default from the preset.
        gradient_checkpointing: Save memory at the cost of a second forward pass.
        seed: Of the adapter's start, the mix and the order of rows.
        dtype: auto (bfloat16 where the hardware has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda, mps ... Which of several GPUs is said by CUDA_VISIBLE_DEVICES.
        save_steps: Steps between checkpoints.
        report_to: Where metrics go besides metrics.jsonl: none, wandb, tensorboard, trackio ...
        trust_remote_code: Run Python code that the model ships.
        resume: Continue the run in output from its last checkpoint.
        force: Replace the run in output.
    """

    # Options of methods that have a field of their own.
    named: ClassVar[tuple[str, ...]] = ()

    model: str
    output: Path
    method: str = "antibody"
    options: dict[str, float | str] = field(default_factory=dict)
    preset: Literal["auto", "paper", "small"] = "auto"
    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    micro_batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.1
    max_length: int = 256
    lora_r: int | None = None
    lora_alpha: int | None = None
    target_modules: tuple[str, ...] | None = None
    gradient_checkpointing: bool = False
    seed: int = 0
    dtype: Dtype = "auto"
    device: str = "auto"
    save_steps: int = 10
    report_to: str = "none"
    trust_remote_code: bool = False
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        refuse_not_positive(self, POSITIVE)
        if self.steps is not None and self.epochs is not None:
            raise UsageError("steps and epochs exclude each other.", hint="Give one of them.", code="conflict")
        if self.resume and self.force:
            raise UsageError(
                "resume and force exclude each other.", hint="Continue a run or replace it.", code="conflict"
            )

    def given_options(self) -> dict[str, float | str]:
        """What the user chose of the method's options.

        Raises:
            UsageError: ``conflict``, where one was chosen twice.
        """
        return chosen_options(self, {name.replace("-", "_"): value for name, value in self.options.items()})

    def to_config(self) -> dict[str, Any]:
        """What is needed to repeat the run: everything but where it is and how it was begun."""
        config = asdict(self)
        for name in ("output", "resume", "force", *(() if self.options else ("options",))):
            del config[name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def refuse_own_output(settings: TrainingSettings) -> None:
    """A run that is trained on must not be replaced by what is trained.

    Raises:
        UsageError: ``conflict``.
    """
    if Path(settings.model).resolve().is_relative_to(settings.output.resolve()):
        raise UsageError(
            f"--output {settings.output} would replace the model {settings.model}.",
            hint="Choose another directory.",
            code="conflict",
        )


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """How a stage is run. Nothing here changes its result.

    Attributes:
        processes: Processes that share every batch, on this machine or the cluster; one for each of several GPUs.
        cluster: Run on a Ray cluster: ray://HOST:PORT, HOST:PORT, auto for the one this machine is in, or local for a
            new one on this machine. Paths must mean the same on all its machines.
    """

    processes: int = 1
    cluster: str | None = None

    def __post_init__(self) -> None:
        refuse_not_positive(self, ("processes",))


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(TrainingSettings):
    """Options of stage 1.

    Attributes:
        refusals: JSONL with a `text` a line: the refusals that harmful prompts are answered by.
        harmful: Harmful prompts with harmful responses; rows labelled safe are left out.
        benign: Prompts with helpful responses, mixed into the refusals.
        benign_ratio: Benign rows' share of the alignment data. Without them the model refuses everything.
        calibration_ratio: Share of the harmful and of the benign prompts, 100 of each at most, that is kept from
            training to find where the gate's score turns from harmful to benign.
        screen: Leave a screen and anchors for a fine-tuning. A stage that only another alignment goes on from needs
            none.
        rho: Radius of the simulated attack, default 0.1; of Vaccine, the length of the perturbation, default 2.
        eta: How much flatter a step must leave the harmful loss, default 5; lambda itself under rule constant and of
            Booster.
        lambda_refusal: Weight of the refusal at the attacked parameters; default from the preset.
        rule: How lambda_t is found: cosine (published code, default), kkt (Theorem 4.1) or constant.
        momentum: Of lambda_t's moving average; default 0.99 under cosine, 0 under kkt.
    """

    named = ("rho", "eta", "lambda_refusal", "rule", "momentum")

    refusals: str = "embedded:refusals"
    harmful: str = "embedded:harmful_train"
    benign: str = "embedded:benign"
    # ASSUMPTION, from trials on SmolLM2-135M: with fewer, short helpful answers look as unlikely as harmful ones.
    benign_ratio: float = 0.5
    # ASSUMPTION: the least that leaves some dozens of the embedded rows.
    calibration_ratio: float = 0.2
    screen: bool = True
    rho: float | None = None
    eta: float | None = None
    lambda_refusal: float | None = None
    rule: Rule | None = None
    momentum: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.calibration_ratio < 1:
            raise UsageError(
                f"calibration_ratio={self.calibration_ratio} is out of range.",
                hint="Use more than 0 and less than 1.",
                code="out_of_range",
            )


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings(TrainingSettings):
    """Options of stage 2.

    Attributes:
        data: The user's rows: messages, prompt/completion or Alpaca, from .jsonl, .parquet or hf://datasets/OWNER/NAME.
        data_format: The rows' format, where their fields do not tell.
        refusals: JSONL with a `text` a line: the refusals rows are compared with. Default: those of the aligned run.
        score: mean (a token, published code, default) or sum (the paper's text).
        tau: Temperature of the rows' softmax, default 1.
        average: row (default), where a row's weight is its share of the loss, or token (published), where long
            responses have more.
        gate: anchor (default), mask or off (published). Other methods have none.
        gate_threshold: Probability of being benign below which a row is withheld, default 0.8.
        anchors: Rows that share every step under gate anchor, and that lisa and safeinstr train on. Default: those of
            the aligned run.
        anchor_rows: Anchors of every step, default 4.
        anchor_floor: The anchors' least share of a step, default 0.2.
        anchor_scale: How strongly anchors hold the model near the aligned one, default 8.
        anchor_tolerance: Drift of the anchors, in nats a token, above which steps are shortened, default 0.02.
        shuffle: Train on the rows in a new order every epoch, instead of the file's.
        allow_unaligned: Weigh rows by a model that no run of ours aligned.
    """

    named = (
        "score",
        "tau",
        "average",
        "gate",
        "gate_threshold",
        "anchor_rows",
        "anchor_floor",
        "anchor_scale",
        "anchor_tolerance",
    )

    data: str
    data_format: str | None = None
    refusals: str | None = None
    score: Score | None = None
    tau: float | None = None
    average: Average | None = None
    gate: Gate | None = None
    gate_threshold: float | None = None
    anchors: str | None = None
    anchor_rows: int | None = None
    anchor_floor: float | None = None
    anchor_scale: float | None = None
    anchor_tolerance: float | None = None
    shuffle: bool = True
    allow_unaligned: bool = False
