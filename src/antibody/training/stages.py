"""`align` and `finetune`: data in, a run directory out. The command line, the benchmarks and the service call these.

Where several processes share a stage, each calls it; the main one alone writes to the run.
"""

import datetime
import importlib.metadata
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from accelerate import PartialState
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from antibody.data.mixes import Parted, align_records, choose_anchors, hold_out, mix
from antibody.data.preparation import prepare, prepare_anchors
from antibody.data.reading import Loaded
from antibody.data.records import Record
from antibody.data.sources import load_labelled, load_records, load_refusals
from antibody.data.tokenization import fitting
from antibody.data.writing import write_records
from antibody.errors import DataError, UsageError
from antibody.files import sha256_of, write_jsonl
from antibody.models.base import BaseModel
from antibody.models.lora import LoraSettings, new_adapter
from antibody.models.run import (
    ANCHORS_FILE,
    REFUSALS_FILE,
    Run,
    anchors_of,
    is_run,
    load_model,
    open_run,
    refusals_of,
)
from antibody.names import BUNDLED_NAME, DEFAULT_THRESHOLD
from antibody.objectives.gradients import gathered
from antibody.reports import write_card
from antibody.screening.screen import save_screen, screen_of
from antibody.training.agreement import agreed, refuse_differences
from antibody.training.alignment_trainer import AntibodyAlignmentTrainer
from antibody.training.checkpoints import MetricsWriter
from antibody.training.configs import AntibodyAlignmentConfig, AntibodyConfig
from antibody.training.dropping import chosen_rows, keep_choice, shared_rows
from antibody.training.finetuning_trainer import AntibodyTrainer
from antibody.training.methods import ALIGNMENTS, FINETUNINGS
from antibody.training.objective_trainer import ObjectiveTrainer
from antibody.training.progress import ProgressBar
from antibody.training.provided import Provided
from antibody.training.reading import SCREENED_TOKENS, shared_screen
from antibody.training.resolved import chosen_preset, resolved, trainer_arguments
from antibody.training.settings import AlignmentSettings, FinetuningSettings, TrainingSettings, refuse_own_output

logger = logging.getLogger(__name__)

# Rows that a run's screen is made on at most, and prompts of each kind that it is calibrated on.
MOST_HARMFUL = 400
MOST_BENIGN = 1000
MOST_HELD_OUT = 100

# Gives callbacks that go along with a trainer, as the service does to follow and to stop one.
Watch = Callable[[AntibodyTrainer, Loaded], Iterable[TrainerCallback]]


def align(settings: AlignmentSettings) -> Run:
    """Stage 1: makes a run whose adapter withstands harmful fine-tuning.

    Raises:
        UsageError, DataError, ModelError, TrainingError: Before anything is trained, but for the last.
    """
    with agreed(settings.device):
        refuse_own_output(settings)
        preset = chosen_preset(settings)
        settings, options = resolved(settings, preset.alignment, preset.lora, ALIGNMENTS)
        config = AntibodyAlignmentConfig(**trainer_arguments(settings), method=settings.method, options=options)
        refusals = load_refusals(settings.refusals)
        harmful = load_labelled(settings.harmful, harmful=True)
        benign = load_labelled(settings.benign, harmful=False)
        # Rows that are never trained on find where the gate's score turns from harmful to benign.
        attack_rows, benign_rows = (
            hold_out(loaded.records, settings.calibration_ratio, most=MOST_HELD_OUT, seed=settings.seed)
            for loaded in (harmful, benign)
        )
        answered = align_records(attack_rows.train, refusals)
        records = mix(answered, benign_rows.train, settings.benign_ratio, seed=settings.seed)
        data = {"harmful": harmful, "benign": benign}
    run = _open(settings, data, refusals)
    if run.complete:
        return run

    started = time.perf_counter()
    with agreed(settings.device):
        model = _with_adapter(settings)
        train = prepare(records, model.tokenizer, max_length=settings.max_length)
        attack = prepare(attack_rows.train, model.tokenizer, max_length=settings.max_length, refusals=refusals)
        trainer = AntibodyAlignmentTrainer(
            model.model,
            config,
            train_dataset=train,
            harmful_dataset=attack,
            processing_class=model.tokenizer,
            refusals=refusals,
        )
        screened = _screened(settings, model.tokenizer, attack_rows, benign_rows) if settings.screen else None
    _train(trainer, run, f"Aligning ({settings.method})")
    more: dict[str, Any] = {"truncated_rows": sum(train["truncated"]) + sum(attack["truncated"])}
    if screened is not None:
        # By whatever method: a fine-tuning with a gate, or on anchors, starts from any alignment.
        made = shared_screen(trainer, *screened.parts)
        scored = zip(screened.parts[1], made.benign_scores, strict=True)
        ranked = [(record, score) for record, score in scored if record.id in screened.short]
        anchors = choose_anchors(answered, ranked, seed=settings.seed)
        if trainer.accelerator.is_main_process:
            more["calibration"] = save_screen(run, made)
            write_records(run.path / ANCHORS_FILE, anchors)
    _finish(run, trainer, settings, model, kind="alignment", data=data, more=more, started=started)
    return run


def finetune(settings: FinetuningSettings, *, watch: Watch | None = None) -> Run:
    """Stage 2: fine-tunes a run's adapter on a user's rows, each weighed by the model's own judgement.

    Args:
        settings: What to train on what.
        watch: Called in every process with the trainer and the upload. Its callbacks come after the method's own: at
            the beginning the upload has been judged (``on_prediction_step`` comes after every batch of it), and after a
            save the checkpoint is complete. One that raises ends the training and leaves a run that can be resumed.

    Raises:
        UsageError, DataError, ModelError, TrainingError: Before anything is trained, but for the last.
    """
    with agreed(settings.device):
        refuse_own_output(settings)
        preset = chosen_preset(settings)
        settings, options = resolved(settings, preset.finetuning, preset.lora, FINETUNINGS)
        config = AntibodyConfig(
            **trainer_arguments(settings),
            method=settings.method,
            options=options,
            train_sampling_strategy="random" if settings.shuffle else "sequential",
        )
        method, objective = FINETUNINGS[settings.method], config.objective()
        if objective.judges:
            _refuse_unaligned(settings)
        screen = screen_of(settings.model) if config.gate != "off" and is_run(settings.model) else None
        upload = load_records(settings.data, format=settings.data_format)
        refusals = load_refusals(settings.refusals or refusals_of(settings.model))
        data = {"upload": upload}
        if "anchors" in objective.batches or method.reads_anchors:
            own = settings.anchors or anchors_of(settings.model)
            if own is None and PartialState().is_main_process:
                logger.warning("%s has no anchors: the embedded ones are used.", settings.model)
            data["anchors"] = load_records(own or "embedded:anchors")
        anchors = data["anchors"].records if "anchors" in data else []
        begun = settings.output if settings.resume else None
        records = chosen_rows(method, upload.records, Provided(anchors, refusals, settings.seed), options, begun)
    if method.drops:
        records = shared_rows(upload.records, records)
    run = _open(settings, data, refusals)
    if run.complete:
        return run
    if method.drops:
        keep_choice(run.path, upload.records, records, options)

    started = time.perf_counter()
    with agreed(settings.device):
        model = _with_adapter(settings)
        compared = refusals if "refusals" in objective.batches else None
        train = prepare(records, model.tokenizer, max_length=settings.max_length, refusals=compared)
        cut = sum(train["truncated"])
        if cut and PartialState().is_main_process:
            logger.warning("Cut at max_length=%d: %d of %d responses.", settings.max_length, cut, len(train))
        trainer = AntibodyTrainer(
            model.model,
            config,
            train_dataset=train,
            processing_class=model.tokenizer,
            refusals=refusals,
            screen=screen,
            anchors=prepare_anchors(anchors, model.tokenizer, max_length=settings.max_length) if anchors else None,
        )
    for callback in watch(trainer, upload) if watch else ():
        trainer.add_callback(callback)
    _train(trainer, run, f"Fine-tuning ({settings.method})")
    taught = any(math.isfinite(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    if not taught and trainer.accelerator.is_main_process:
        logger.warning("No step was on a row of the upload: its rows were withheld, or the method trained on others.")
    if objective.judges and trainer.accelerator.is_main_process:
        threshold = DEFAULT_THRESHOLD if config.gate_threshold is None else config.gate_threshold
        write_jsonl(run.path / "audit.jsonl", trainer.audit.report(upload.records, threshold=threshold))
    if method.drops and trainer.accelerator.is_main_process:
        write_jsonl(run.path / "audit.jsonl", trainer.audit.report_dropped(upload.records, records))
    more = {"truncated_rows": cut}
    if anchors and trainer.accelerator.is_main_process:
        write_records(run.path / ANCHORS_FILE, anchors)
    _finish(run, trainer, settings, model, kind="finetuning", data=data, more=more, started=started)
    return run


class _Screened(NamedTuple):
    """Rows of a screen.

    Attributes:
        parts: Harmful and benign rows that it is made on, then those that it is calibrated on.
        short: Ids of the benign ones that it is made on which may become anchors.
    """

    parts: list[list[Record]]
    short: set[str]


def _screened(settings: AlignmentSettings, tokenizer: Any, harmful: Parted, benign: Parted) -> _Screened:
    """Drawn rows, as far as they fit. An anchor must be as short as what the model is aligned on.

    Raises:
        DataError: ``too_few_rows``, where none of a part does.
    """
    random = Random(settings.seed)
    parts = [
        random.sample(harmful.train, min(len(harmful.train), MOST_HARMFUL)),
        random.sample(benign.train, min(len(benign.train), MOST_BENIGN)),
        harmful.held_out,
        benign.held_out,
    ]
    most = max(settings.max_length, SCREENED_TOKENS)
    kept = [fitting(part, tokenizer, most) for part in parts]
    short = fitting(kept[1], tokenizer, settings.max_length)
    drawn, left = (sum(map(len, each)) for each in (parts, kept))
    if left < drawn and PartialState().is_main_process:
        logger.warning("Left out of the screen, as longer than %d tokens: %d of %d rows.", most, drawn - left, drawn)
    for part, found in [*zip(parts, kept, strict=True), (parts[1], short)]:
        if not found:
            raise DataError(
                f"None of {len(part)} rows that the screen and the anchors need is short enough.",
                hint=f"Give shorter rows or more of them, or raise --max-length above {settings.max_length}.",
                code="too_few_rows",
                path=part[0].source,
            )
    return _Screened(kept, {record.id for record in short})


def _refuse_unaligned(settings: FinetuningSettings) -> None:
    if not is_run(settings.model) and not settings.allow_unaligned:
        raise UsageError(
            f"{settings.model} is not an aligned run: its own judgement of a row protects nothing."
            if Path(settings.model).exists() or settings.model == BUNDLED_NAME
            else f"There is no {settings.model} here, and a model of that name elsewhere is not an aligned run.",
            hint="Align it with `antibody align` and name that run, or trust its maker's alignment: --allow-unaligned.",
            code="not_aligned",
        )


def _open(settings: TrainingSettings, data: dict[str, Loaded], refusals: list[str]) -> Run:
    """Opens the run with the hashes of all that it reads, and keeps the refusals in it. The main process does."""
    with agreed(settings.device):
        inputs = {name: loaded.sha256 for name, loaded in data.items()} | {"refusals": sha256_of(refusals)}
        if is_run(settings.model):
            parent = Run(Path(settings.model)).manifest()
            inputs |= {"parent": parent["adapter_sha256"], "calibration": sha256_of(parent.get("calibration"))}
    config = settings.to_config()
    refuse_differences(config | inputs)
    with agreed(settings.device):
        if PartialState().is_main_process:
            run = open_run(settings.output, config, inputs, resume=settings.resume, force=settings.force)
            if not run.complete:
                write_jsonl(run.path / REFUSALS_FILE, [{"text": text} for text in refusals])
    with agreed(settings.device):
        if not is_run(settings.output):
            raise UsageError(
                f"{settings.output} was begun on another machine, and this one does not see it.",
                hint="Choose a directory that all machines share.",
                code="not_shared",
            )
    return Run(settings.output)


def _with_adapter(settings: TrainingSettings) -> BaseModel:
    """The model with the adapter it trains: the run's own, or a new one on a base model."""
    set_seed(settings.seed)
    loaded = load_model(
        settings.model,
        trainable=True,
        dtype=settings.dtype,
        device=settings.device,
        trust_remote_code=settings.trust_remote_code,
    )
    if is_run(settings.model):
        return loaded
    assert settings.lora_r and settings.lora_alpha and settings.target_modules, "settings are resolved by now"
    shape = LoraSettings(r=settings.lora_r, alpha=settings.lora_alpha, target_modules=settings.target_modules)
    return replace(loaded, model=new_adapter(loaded.model, shape))


def _train(trainer: ObjectiveTrainer, run: Run, description: str) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    bar = ProgressBar(description)
    trainer.add_callback(bar)
    trainer.add_callback(MetricsWriter(run.path / "metrics.jsonl"))
    try:
        trainer.train(resume_from_checkpoint=True)
    finally:
        bar.stop()


def _finish(
    run: Run,
    trainer: ObjectiveTrainer,
    settings: TrainingSettings,
    model: BaseModel,
    *,
    kind: str,
    data: dict[str, Loaded],
    more: dict[str, Any],
    started: float,
) -> None:
    adapter = {name: gathered(p) for name, p in trainer.model.named_parameters() if p.requires_grad}
    if trainer.accelerator.is_main_process:
        run.save_adapter(trainer.model, adapter)
        run.write_manifest(_manifest(trainer, settings, model, kind, data, started) | more)
        write_card(run.path)
    trainer.accelerator.wait_for_everyone()


def _manifest(
    trainer: ObjectiveTrainer,
    settings: TrainingSettings,
    model: BaseModel,
    kind: str,
    data: dict[str, Loaded],
    started: float,
) -> dict[str, Any]:
    parent = Run(Path(settings.model)) if is_run(settings.model) else None
    parent_manifest = parent.manifest() if parent else None
    return {
        "kind": kind,
        "method": settings.method,
        "model": {
            "name": model.name,
            "revision": model.revision,
            "dtype": str(model.model.dtype).removeprefix("torch."),
        },
        "parent": str(parent.path) if parent else None,
        "lineage": [
            *parent_manifest["lineage"],
            {
                "kind": parent_manifest["kind"],
                "method": parent_manifest["method"],
                "adapter_sha256": parent_manifest["adapter_sha256"],
            },
        ]
        if parent_manifest
        else [],
        "seed": settings.seed,
        "steps": trainer.state.global_step,
        "data": {
            name: {"path": loaded.path, "sha256": loaded.sha256, "rows": loaded.rows} for name, loaded in data.items()
        },
        "settings": settings.to_config(),
        "processes": trainer.processes.count,
        "versions": {
            name: importlib.metadata.version(name) for name in ("antibody-ft", "torch", "transformers", "trl", "peft")
        },
        "seconds": round(time.perf_counter() - started, 1),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": "complete",
    }
