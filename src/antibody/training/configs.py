"""Configurations: `trl.SFTConfig` and the method's own settings. What cannot work with an objective is refused here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from trl import SFTConfig

from antibody.errors import UsageError
from antibody.models.base import choose_device, has_bfloat16
from antibody.objectives.step import Objective
from antibody.training.methods import ALIGNMENTS, FINETUNINGS, Method, options_of
from antibody.training.settings import AlignmentSettings, FinetuningSettings, chosen_options

# engine.backward() averages, partitions and clears the gradients of every pass in buffers of its own. A step composes
# several passes, one of them at other parameters, and must put its own direction there.
NO_DEEPSPEED = (
    "Use FSDP2, which shards as much: DeepSpeed keeps each pass's gradients where a step cannot compose them."
)

# What SFTConfig offers and an objective cannot honour: the option, the values that are fine, and what to use instead.
REFUSED: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("packing", (False,), "Rows must stay apart to be weighed; set micro_batch_size to save memory."),
    ("padding_free", (False,), "Rows must stay apart to be weighed; set micro_batch_size to save memory."),
    ("assistant_only_loss", (False,), "Leave it off: every assistant turn is already trained on, as a row of its own."),
    ("completion_only_loss", (None, True), "Leave it unset: prompts are always masked from the loss."),
    ("loss_type", ("nll",), "Use loss_type='nll': the rows' weights are defined on the log-likelihood."),
    ("label_smoothing_factor", (0, 0.0), "Set it to 0: the rows' weights are defined on the log-likelihood."),
    ("neftune_noise_alpha", (None,), "Leave it unset: the passes of a step must see one network."),
    ("activation_offloading", (False,), "Set micro_batch_size to save memory."),
    ("fp16", (False,), "Use bf16=True or float32: a scaled loss would scale the composed gradient."),
    ("use_liger_kernel", (False,), "Leave it off: it replaces the model's forward."),
    (
        "dataset_text_field",
        ("text",),
        "Use `messages` or `prompt` and `completion`: a row needs a prompt and a response.",
    ),
    ("save_only_model", (False,), "Leave it off: a checkpoint that cannot be resumed exactly is not written."),
    ("save_total_limit", (None, *range(2, 10_000)), "Keep two or more: a crash while saving would leave none."),
    ("truncation_mode", ("keep_start",), "Leave it: the prompt must stay whole."),
    ("pad_to_multiple_of", (None, "auto"), "Leave it unset: micro-batches are padded as little as they can be."),
    ("dataset_kwargs", (None,), "Leave it unset: rows are prepared here, each with its refusal."),
    ("auto_find_batch_size", (False,), "Set micro_batch_size: a smaller batch would be weighed differently."),
    ("ignore_data_skip", (False,), "Leave it off: a resumed run would see other rows."),
    ("train_sampling_strategy", ("random", "sequential"), "Leave it: the order must not depend on the processes."),
)
# Likewise in its accelerator_config.
REFUSED_BY_ACCELERATE: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("split_batches", (False,), "Leave it off and choose per_device_train_batch_size: batches are shared row by row."),
    ("dispatch_batches", (None, False), "Leave it off: every process reads its own share of a batch."),
    ("use_seedable_sampler", (True,), "Leave it on: the order must not depend on the processes."),
)


@dataclass
class ObjectiveConfig(SFTConfig):  # type: ignore[misc]
    """Shared by both stages.

    Args:
        method: A key of ``methods``.
        options: Options of the method by name, see `antibody.training.methods`; afterwards all of them. Those that have
            a field of their own may be given there.
        micro_batch_size: Rows in one forward pass; None is ``per_device_train_batch_size``. Changes memory alone.
        max_grad_norm: What AdamW is given is the objective's composed gradient, clipped to this norm; 0 clips nothing.
    """

    methods: ClassVar[Mapping[str, Method]]
    # Options that have a field of their own.
    named: ClassVar[tuple[str, ...]]

    method: str = field(default="antibody", metadata={"help": "antibody or the name of a baseline."})
    options: dict[str, Any] = field(default_factory=dict, metadata={"help": "Options of the method by name."})
    micro_batch_size: int | None = field(default=None, metadata={"help": "Rows in one forward pass."})

    # arXiv 2603.00498 and its code, both stages.
    max_length: int | None = field(
        default=256, metadata={"help": "Tokens of prompt and response; the response is cut."}
    )
    weight_decay: float = field(default=0.1, metadata={"help": "AdamW's weight decay."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows of one loader batch."})
    num_train_epochs: float = field(default=20, metadata={"help": "Passes over the training data."})
    # ASSUMPTION: the published code runs the Trainer of `transformers`, whose default this is, and names no other.
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm to which the composed gradient is clipped."})

    def __post_init__(self) -> None:
        # transformers would look for DeepSpeed first.
        if self.deepspeed is not None or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
            raise UsageError(
                f"{type(self).__name__} cannot honour deepspeed, which it or `accelerate` was told to use.",
                hint=NO_DEEPSPEED,
                code="option_refused",
            )
        if getattr(self, "bf16", None) is None:
            # SFTConfig would switch bfloat16 on everywhere, also where a CPU has to emulate it.
            self.bf16 = not self.fp16 and has_bfloat16(torch.device("cpu") if self.use_cpu else choose_device())
        super().__post_init__()
        # The collator needs columns that the model's forward does not name.
        self.remove_unused_columns = False
        for options, refused in ((self, REFUSED), (self.accelerator_config, REFUSED_BY_ACCELERATE)):
            for option, allowed, instead in refused:
                value = getattr(options, option)
                if value not in allowed:
                    raise UsageError(
                        f"{type(self).__name__} cannot honour {option}={value!r}.", hint=instead, code="option_refused"
                    )
        if self.n_gpu > 1:
            raise UsageError(
                f"{self.n_gpu} GPUs are visible, and `transformers` would spread each batch over them.",
                hint="Begin one process for each, with --processes or accelerate launch; or show it one: "
                "CUDA_VISIBLE_DEVICES=0.",
                code="many_devices",
            )
        if self.max_length is None:
            raise UsageError("max_length=None is not bounded.", hint="Give a number of tokens.", code="option_refused")
        if self.micro_batch_size is not None and not 1 <= self.micro_batch_size <= self.per_device_train_batch_size:
            raise UsageError(
                f"micro_batch_size={self.micro_batch_size} does not lie between 1 and "
                f"per_device_train_batch_size={self.per_device_train_batch_size}.",
                hint="It splits a loader batch; it cannot join several.",
                code="conflict",
            )

        self._choose_options()

    def _choose_options(self) -> None:
        self.options = options_of(self.methods, self.method, chosen_options(self, self.options))
        for name in self.named:
            setattr(self, name, self.options.get(name))
        # Options that exclude each other.
        self.objective()

    def objective(self) -> Objective:
        """A new one of the method, with its options."""
        return self.methods[self.method].objective(self.options)


@dataclass
class AntibodyConfig(ObjectiveConfig):
    """`trl.SFTConfig` for stage 2. Defaults are the published ones (arXiv 2603.00498 and its code), but for the gate,
    its anchors and the average.

    Args:
        score: ``mean`` (published code) or ``sum`` (the paper's text).
        tau: τ, the softmax's temperature.
        average: ``row`` (default) or ``token`` (published), see `antibody.objectives.weights`.
        gate: ``off`` (published), ``mask`` or ``anchor`` (default), see `antibody.objectives.gate`. Methods without a
            gate have it ``off``.
        gate_threshold: Probability of being benign below which a row is withheld.
        anchor_rows: Anchors of every optimiser step.
        anchor_floor: φ_0, the anchors' least share of a step; more where more of the upload is withheld.
        anchor_scale: κ, how strongly anchors hold the model near the aligned one.
        anchor_tolerance: D_0, the anchors' drift in nats a token above which steps are shortened.
    """

    methods = FINETUNINGS
    named = FinetuningSettings.named

    score: str | None = field(default=None, metadata={"help": "mean or sum."})
    tau: float | None = field(default=None, metadata={"help": "Temperature of the rows' softmax."})
    average: str | None = field(default=None, metadata={"help": "row or token."})
    gate: str | None = field(default=None, metadata={"help": "off, mask or anchor."})
    gate_threshold: float | None = field(default=None, metadata={"help": "Least probability of being benign."})
    anchor_rows: int | None = field(default=None, metadata={"help": "Anchors of every optimiser step."})
    anchor_floor: float | None = field(default=None, metadata={"help": "The anchors' least share of a step."})
    anchor_scale: float | None = field(default=None, metadata={"help": "How strongly anchors hold the model."})
    anchor_tolerance: float | None = field(default=None, metadata={"help": "Drift above which steps are shortened."})

    learning_rate: float = field(default=1e-5, metadata={"help": "AdamW's learning rate."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "Schedule."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Share of the steps (below 1) or their number."})

    def _choose_options(self) -> None:
        super()._choose_options()
        self.gate = self.gate or "off"


@dataclass
class AntibodyAlignmentConfig(ObjectiveConfig):
    """`trl.SFTConfig` for stage 1. Defaults are the published ones (arXiv 2603.00498 and its code).

    Args:
        rho: ρ, the radius of the simulated attack; of Vaccine, the length of the perturbation.
        eta: η of the constraint; λ itself under rule ``constant`` and of Booster.
        lambda_refusal: λ_refusal, the weight of the refusal at the attacked parameters.
        rule: ``cosine`` (published code), ``kkt`` (Theorem 4.1) or ``constant``.
        momentum: Of λ_t's moving average. None is 0.99 under ``cosine``, as in the published code, and 0 under ``kkt``.
    """

    methods = ALIGNMENTS
    named = AlignmentSettings.named

    rho: float | None = field(default=None, metadata={"help": "Radius of the simulated attack."})
    eta: float | None = field(default=None, metadata={"help": "How much flatter a step must leave the harmful loss."})
    lambda_refusal: float | None = field(
        default=None, metadata={"help": "Weight of the refusal at the attacked parameters."}
    )
    rule: str | None = field(default=None, metadata={"help": "cosine, kkt or constant."})
    momentum: float | None = field(default=None, metadata={"help": "Of the moving average of lambda_t."})

    learning_rate: float = field(default=5e-4, metadata={"help": "AdamW's learning rate."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule."})
