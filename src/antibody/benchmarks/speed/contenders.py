"""The contenders, each a `transformers` trainer over the same tokens in the same order.

hf_trainer and trl are undefended: in the alignment stage they train on ``D_align`` alone.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from antibody.benchmarks.speed.rows import alignment_rows, finetuning_rows
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.benchmarks.speed.textbook import TextbookAlignment, TextbookFinetuning
from antibody.data import corpus
from antibody.data.collation import pad_rows
from antibody.data.preparation import prepare
from antibody.models.base import BaseModel
from antibody.models.lora import LoraSettings, new_adapter
from antibody.models.run import is_run, load_model
from antibody.screening.screen import Judged
from antibody.training.alignment_trainer import AntibodyAlignmentTrainer
from antibody.training.configs import AntibodyAlignmentConfig, AntibodyConfig
from antibody.training.finetuning_trainer import AntibodyTrainer
from antibody.training.presets import Preset, preset_for
from antibody.training.row_stream import RowStream

Stage = Literal["finetune", "align"]
Contender = Literal["hf_trainer", "trl", "textbook", "antibody", "antibody_gate"]

STAGES: tuple[Stage, ...] = ("finetune", "align")
# `antibody` is the published method, as the textbook's is; `antibody_gate` the default, whose anchors share every step.
CONTENDERS: dict[Stage, tuple[Contender, ...]] = {
    "finetune": ("hf_trainer", "trl", "textbook", "antibody", "antibody_gate"),
    "align": ("hf_trainer", "trl", "textbook", "antibody"),
}
PUBLISHED = {"gate": "off", "average": "token"}


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        stage: ``finetune`` or ``align``.
        rows: A kind of rows, as `rows.words_of` takes it.
        contender: Who makes the steps.
        batch_size: Rows of a step.
        micro_batch_size: Rows of one of Antibody's forward passes; None is all.
        lora_r: Rank of a new adapter; None is the preset's.
    """

    stage: Stage
    rows: str
    contender: Contender
    batch_size: int
    micro_batch_size: int | None = None
    lora_r: int | None = None


@dataclass(frozen=True)
class Rows:
    """Tokenised rows, in the order of the steps.

    Attributes:
        rows: The user's upload, each with its refusal; in the alignment stage ``D_align``.
        harmful: ``D_harm``, each with its refusal, in the order that `AntibodyAlignmentTrainer` draws; else None.
        harmful_dataset: The same, as that trainer is given it.
    """

    rows: Dataset
    harmful: Sequence[Mapping[str, Any]] | None = None
    harmful_dataset: Dataset | None = None


def load(settings: SpeedSettings) -> BaseModel:
    """The model that all contenders share, with nothing but a run's adapter left to train."""
    loaded = load_model(
        settings.model,
        trainable=True,
        dtype=settings.dtype,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    if not is_run(settings.model):
        loaded.model.requires_grad_(False)
    return loaded


def rows_of(case: Case, tokenizer: Any, steps: int, settings: SpeedSettings) -> Rows:
    """The rows of that many steps."""
    count, refusals = steps * case.batch_size, corpus.refusals()

    def prepared(records: Any) -> Dataset:
        return prepare(records, tokenizer, max_length=settings.max_length, refusals=refusals)

    if case.stage == "finetune":
        return Rows(prepared(finetuning_rows(case.rows, count, seed=settings.seed)))
    align, harmful = (prepared(records) for records in alignment_rows(case.rows, count, seed=settings.seed))
    return Rows(align, RowStream(harmful, seed=settings.seed).batch(0, count), harmful)


def build(case: Case, loaded: BaseModel, rows: Rows, *, steps: int, output: Path, settings: SpeedSettings) -> Any:
    """A contender's trainer, ready for ``train()``, with adapter and optimiser of its own."""
    preset = preset_for(loaded.name)
    model = _with_own_adapter(loaded.model, case, preset, settings)
    tokenizer = loaded.tokenizer
    stage = preset.finetuning if case.stage == "finetune" else preset.alignment
    options: dict[str, Any] = {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": case.batch_size,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.1,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": model.device.type == "cpu",
        # All are loaded in the dtype they are trained in.
        "bf16": False,
        "seed": settings.seed,
    }
    trainer: Any
    if case.contender == "hf_trainer":
        trainer = Trainer(
            model,
            TrainingArguments(**options),
            train_dataset=_plain(rows.rows),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
    elif case.contender == "trl":
        trainer = SFTTrainer(
            model,
            SFTConfig(**options, max_length=settings.max_length),
            train_dataset=_plain(rows.rows),
            processing_class=tokenizer,
        )
    elif case.contender == "textbook":
        kind = TextbookFinetuning if case.stage == "finetune" else TextbookAlignment
        trainer = kind(
            model,
            TrainingArguments(**options, remove_unused_columns=False),
            train_dataset=rows.rows if rows.harmful is None else _paired(rows.rows, rows.harmful),
            data_collator=TextbookCollator(tokenizer.pad_token_id),
        )
    else:
        options |= {"max_length": settings.max_length, "micro_batch_size": case.micro_batch_size}
        given = {"train_dataset": rows.rows, "processing_class": tokenizer}
        if case.stage == "finetune":
            if case.contender == "antibody":
                options |= PUBLISHED
            trainer = AntibodyTrainer(model, AntibodyConfig(**options), **given)
            if trainer.args.gate != "off":
                # The one look at the upload is no part of a step. It found nothing to withhold.
                trainer.audit.screened = Judged([0.0] * len(rows.rows), [1.0] * len(rows.rows))
        else:
            given["harmful_dataset"] = rows.harmful_dataset
            trainer = AntibodyAlignmentTrainer(model, AntibodyAlignmentConfig(**options), **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _with_own_adapter(model: Any, case: Case, preset: Preset, settings: SpeedSettings) -> Any:
    """The module tree copied, because trainers patch it, with the frozen weights shared."""
    own = copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})
    if hasattr(own, "peft_config"):
        return own
    torch.manual_seed(settings.seed)
    shape = LoraSettings(
        r=case.lora_r or preset.lora.r, alpha=preset.lora.alpha, target_modules=preset.lora.target_modules
    )
    return new_adapter(own, shape)


def _plain(rows: Dataset) -> Dataset:
    """As undefended trainers read them: prompt and response in one, the prompt masked from the loss."""
    return Dataset.from_list(
        [
            {
                "input_ids": row["prompt_ids"] + row["response_ids"],
                "attention_mask": [1] * (len(row["prompt_ids"]) + len(row["response_ids"])),
                "labels": [-100] * len(row["prompt_ids"]) + row["response_ids"],
            }
            for row in rows
        ]
    )


def _paired(align: Dataset, harmful: Sequence[Mapping[str, Any]]) -> Dataset:
    """A row of ``D_align`` and one of ``D_harm`` in one, as the textbook's alignment reads them."""
    return Dataset.from_list(
        [
            {
                "prompt_ids": row["prompt_ids"],
                "response_ids": row["response_ids"],
                "harmful_prompt_ids": other["prompt_ids"],
                "harmful_response_ids": other["response_ids"],
                "refusal_ids": other["refusal_ids"],
            }
            for row, other in zip(align, harmful, strict=True)
        ]
    )


class TextbookCollator:
    """Pads the rows, the refusals of the same (or the harmful) prompts, and the harmful rows where there are any."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        attacked = "harmful_prompt_ids" if "harmful_prompt_ids" in rows[0] else "prompt_ids"
        batch = self._part(rows, "prompt_ids", "response_ids", "")
        batch |= self._part(rows, attacked, "refusal_ids", "refusal_")
        if attacked == "harmful_prompt_ids":
            batch |= self._part(rows, attacked, "harmful_response_ids", "harmful_")
        return batch

    def _part(self, rows: Sequence[Mapping[str, Any]], prompts: str, responses: str, prefix: str) -> dict[str, Tensor]:
        padded = pad_rows([row[prompts] for row in rows], [row[responses] for row in rows], self.pad_token_id)
        return {prefix + key: value for key, value in padded.items()}
