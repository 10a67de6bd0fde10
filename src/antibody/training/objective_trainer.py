"""`trl.SFTTrainer`s whose optimiser step is composed by an objective.

Someone with an `SFTTrainer` script changes two names and is defended. The loader's batches of one optimiser step are
gathered first and given to the objective together, so that a batch means the whole batch of the step however
``per_device_train_batch_size``, ``gradient_accumulation_steps``, ``micro_batch_size`` and the processes split it.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.data_loader import DataLoaderShard, SeedableRandomSampler
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from trl import SFTTrainer
from trl.trainer.utils import get_config_model_id

from antibody.data import corpus
from antibody.data.collation import INPUT_KEYS, STAND_IN, PairedCollator, by_length, split_batch
from antibody.data.preparation import PREPARED, prepare, records_of
from antibody.data.records import Record
from antibody.errors import TrainingError, UsageError
from antibody.objectives.gradients import all_finite
from antibody.objectives.processes import Processes
from antibody.objectives.step import RowWeights
from antibody.training.audit import RowAudit
from antibody.training.batches import SharedBatches, share_of
from antibody.training.checkpoints import StateWriter, last_checkpoint, read_state, refuse_other_order
from antibody.training.configs import ObjectiveConfig
from antibody.training.limits import refuse_arguments, refuse_unfit
from antibody.training.row_stream import RowStream
from antibody.training.sharding import reshard, whole
from antibody.training.steps import ModelStep

logger = logging.getLogger(__name__)

Rows = dict[str, Tensor]


class StepRows(NamedTuple):
    """What a process contributes to a step.

    Attributes:
        batches: Micro-batches by name.
        judged: The loader's rows that the objective sees, in its order.
        withheld: How many of the loader's rows a gate keeps out.
    """

    batches: dict[str, list[Rows]]
    judged: Sequence[Rows]
    withheld: int = 0


class ObjectiveTrainer(SFTTrainer):  # type: ignore[misc]
    """What both stages share. Takes `trl.SFTTrainer`'s arguments.

    Args:
        refusals: ``Y_r``, the short refusals rows are compared with, taken in turn. Default: the embedded 100.

    Raises:
        UsageError: An argument cannot work with the method; it says which and what to use instead.
        DataError: A row cannot be trained on.
    """

    _tag_names = ("trl", "antibody")
    config_class: type[ObjectiveConfig]

    def __init__(
        self,
        model: Any,
        args: ObjectiveConfig | None = None,
        data_collator: None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        refusals: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self.config_class(output_dir=f"{name.split('/')[-1]}-{self.config_class.__name__}")
        if not isinstance(args, self.config_class):
            raise UsageError(
                f"{type(self).__name__} needs {self.config_class.__name__}, not {type(args).__name__}.",
                hint="Change the configuration's name too; it takes the same options.",
                code="wrong_config",
            )
        refuse_arguments(
            type(self).__name__,
            {"data_collator": data_collator}
            | {name: kwargs.get(name) for name in ("compute_loss_func", "formatting_func", "compute_metrics")},
        )
        if isinstance(train_dataset, IterableDataset):
            raise UsageError(
                "A streamed data set cannot be resumed exactly or audited row by row.",
                hint="Load it whole, with streaming=False.",
                code="option_refused",
            )
        self.refusals = list(refusals if refusals is not None else corpus.refusals())
        self.objective = args.objective()
        self.audit = RowAudit()
        self._step_scale = 1.0
        self._gathered: list[Rows] = []
        self._steps_with_loss = 0
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.data_collator = PairedCollator(self.tokenizer.pad_token_id)
        self.processes = Processes(self.accelerator.num_processes, self.accelerator.device)
        self.add_callback(StateWriter(self._method_state))
        self.add_callback(_ScaledSteps(lambda: self._step_scale))
        self._refuse_what_breaks_the_method()
        self._reduce_in_float32()

    def _reduce_in_float32(self) -> None:
        """Eight bits do not hold the sums that inner products are of. `accelerate` has FSDP2 add in bfloat16."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.mixed_precision_policy is not None:
            plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)

    def _refuse_what_breaks_the_method(self) -> None:
        refuse_unfit(self)

    # The one hook of SFTTrainer's that turns rows into tokens, for training and for evaluation data alike.
    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Dataset:
        if PREPARED in dataset.column_names:
            return dataset
        records = records_of(dataset, name=dataset_name)
        if dataset_name == "train":
            records = self._trained_rows(records, args)
        return self._prepared(records, args.max_length, refusals="refusals" in self.objective.batches)

    def _trained_rows(self, records: list[Record], args: Any) -> list[Record]:
        """What the method makes of the rows before training."""
        return records

    def _prepared(self, records: Sequence[Record], max_length: int, *, refusals: bool) -> Dataset:
        return prepare(records, self.tokenizer, max_length=max_length, refusals=self.refusals if refusals else None)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Plain cross-entropy, for evaluation alone: training goes through the objective."""
        return super().compute_loss(model, {key: inputs[key] for key in INPUT_KEYS}, return_outputs, num_items_in_batch)

    @property
    def tokenizer(self) -> Any:
        """Of the text, also where a processor was given."""
        return self._tokenizer

    @property
    def step_rows(self) -> int:
        """Rows of a whole optimiser step, over all processes."""
        rows: int = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return rows * self.processes.count

    def get_train_dataloader(self) -> DataLoaderShard:
        """Batches in an order that the seed decides, whatever the number of processes, and of each this one's share."""
        in_order = self.args.train_sampling_strategy == "sequential"
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        data = self.train_dataset
        order = SequentialSampler(data) if in_order else SeedableRandomSampler(data, data_seed=seed)
        batches = SharedBatches(
            self._trained_order(order),
            self.args.per_device_train_batch_size * self.processes.count,
            drop_last=self.args.dataloader_drop_last,
            process=self.accelerator.process_index,
            processes=self.processes.count,
        )
        return DataLoaderShard(
            data,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def _trained_order(self, order: Any) -> Any:
        """What the method makes of the order of the rows."""
        return order

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Gathers loader batches until the optimiser step's batch is whole; then the objective composes the step."""
        self._gathered.append(self._prepare_inputs(by_length(inputs)))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        gathered, self._gathered = self._gathered, []
        started = time.perf_counter()
        model.train()
        reshard(self.model)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        rows = self._step_rows(gathered)
        step = ModelStep(
            whole(model), parameters, self.processes, rows.batches, rows.withheld, self.compute_loss_context_manager
        )
        result = self.objective(step)
        self._step_scale = result.scale
        loss = math.nan if result.loss is None else result.loss
        finite = result.loss is None or math.isfinite(result.loss)
        finite = finite and all_finite([p.grad for p in parameters if p.grad is not None])
        if self.processes.any(not finite):
            raise TrainingError(
                f"Step {self.state.global_step + 1}: the loss or its gradient is not a number ({loss}).",
                hint=f"Begin again with a learning_rate below {self.args.learning_rate}.",
                code="diverged",
            )
        seconds = time.perf_counter() - started
        here = sum(int(piece["attention_mask"].sum()) for name in step.read for piece in rows.batches[name])
        [tokens] = self.processes.total(here)
        for name, value in result.metrics.items():
            self._log_metric(name, value)
        # The same in every process, also in one that has no row of this step: they record rows together.
        if result.rows is not None or self.audit.screened is not None:
            self._record_rows(gathered, rows.judged, result.rows)
        self._log_metric("tokens_per_second", tokens / seconds)
        self._steps_with_loss += result.loss is not None
        return torch.tensor(loss, device=self.args.device)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Logs no loss of steps that had none, where `transformers` would fill in 0."""
        if "loss" in logs and not self._steps_with_loss:
            logs["loss"] = math.nan
        self._steps_with_loss = 0
        super().log(logs, *arguments, **options)

    def _step_rows(self, gathered: Sequence[Rows]) -> StepRows:
        raise NotImplementedError

    def _split(self, gathered: Sequence[Rows], prefix: str = "") -> list[Rows]:
        """Micro-batches, as many as in every other process: one that has fewer rows fills up with rows of no weight."""
        pieces = [piece for batch in gathered for piece in split_batch(batch, self.args.micro_batch_size, prefix)]
        missing = int(self.processes.largest(len(pieces))) - len(pieces)
        stand_in = self._prepare_inputs(self.data_collator([]))
        return pieces + missing * split_batch(stand_in, None, prefix)

    def _present(self, batches: Sequence[Rows]) -> int:
        """Rows of this process that stand for themselves."""
        return sum(int((batch["row"] != STAND_IN).sum()) for batch in batches)

    def _drawn(self, stream: RowStream, offset: int, size: int) -> list[Rows]:
        """This process's share of ``size`` rows of a stream, in batches of the loader's size."""
        rows = share_of(stream.batch(offset, size), self.accelerator.process_index, self.processes.count)
        width = self.args.per_device_train_batch_size
        return [
            self._prepare_inputs(by_length(self.data_collator(rows[start : start + width])))
            for start in range(0, max(1, len(rows)), width)
        ]

    def _record_rows(self, gathered: Sequence[Rows], judged: Sequence[Rows], values: RowWeights | None) -> None:
        """What became of each row. One that the gate withheld has no score of this step, and no weight."""
        found = dict.fromkeys(_indices(gathered), (math.nan, 0.0))
        if values is not None:
            # Rows that only stand in come last.
            judgements = zip(values.scores.tolist(), values.weights.tolist(), strict=True)
            found |= dict(zip(_indices(judged), judgements, strict=False))
        labels = [label for batch in gathered for label in batch["harmful"].tolist()]
        here = [(row, label, *found[row]) for row, label in zip(_indices(gathered), labels, strict=True)]
        everywhere = [entry for entry in gather_object(here) if entry[0] != STAND_IN]
        rows, labels, scores, weights = (list(column) for column in zip(*everywhere, strict=True))
        self.audit.add(self.state.global_step + 1, rows, scores, weights)
        if min(labels) >= 0:
            self._record_labelled(torch.tensor(labels) == 1, torch.tensor(scores), torch.tensor(weights))

    def _record_labelled(self, harmful: Tensor, scores: Tensor, weights: Tensor) -> None:
        """What the rows' labels show. They are logged, never trained by."""
        self._log_metric("data_share_harmful", harmful.double().mean().item())
        if weights.any():
            self._log_metric("weight_share_harmful", weights[harmful].sum().item())
        for name, labelled in (("score_harmful", harmful), ("score_benign", ~harmful)):
            if (scored := labelled & ~scores.isnan()).any():
                self._log_metric(name, scores[scored].mean().item())

    def _log_metric(self, name: str, value: float) -> None:
        self._metrics["train"][name].append(value)

    def save_model(self, *arguments: Any, **options: Any) -> None:
        """Saves the model, as every checkpoint does first.

        Raises:
            TrainingError: A step left a parameter that is no number; no later loss would show it after the last step.
        """
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        broken = not all_finite(parameters)
        # Whole parameters are the same in every process, and a script may save them in one alone.
        if self.processes.any(broken) if isinstance(parameters[0], DTensor) else broken:
            raise TrainingError(
                f"Step {self.state.global_step}: a parameter is not a number, so nothing is saved.",
                hint=f"Begin again with a learning_rate below {self.args.learning_rate}.",
                code="diverged",
            )
        super().save_model(*arguments, **options)

    def _method_state(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state_dict(),
            "audit": self.audit.state_dict(),
            "order": self._order(),
        }

    def _order(self) -> dict[str, Any]:
        """The method, its options, and what decides which rows make up a step. The number of processes does not."""
        return {
            "method": self.args.method,
            # As text, as which an infinity comes through a checkpoint.
            "options": {name: str(value) for name, value in self.args.options.items()},
            "rows of a step": self.step_rows,
            "rows": len(self.train_dataset),
            "seed": self.args.seed,
            "data_seed": self.args.data_seed,
            "train_sampling_strategy": self.args.train_sampling_strategy,
            "dataloader_drop_last": self.args.dataloader_drop_last,
        }

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trains, from the start or exactly where a checkpoint left off.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the last complete one (if there is one).

        Raises:
            TrainingError: It diverged, ran out of memory, or the checkpoint cannot be continued.
        """
        self._gathered = []
        checkpoint = (
            last_checkpoint(Path(self.args.output_dir)) if resume_from_checkpoint is True else resume_from_checkpoint
        )
        if checkpoint:
            state = read_state(Path(checkpoint))
            refuse_other_order(Path(checkpoint), state["order"], self._order())
            self.objective.load_state_dict(state["objective"])
            self.audit.load_state_dict(state["audit"])
        try:
            return super().train(resume_from_checkpoint=str(checkpoint) if checkpoint else None, **kwargs)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"Out of memory: {error}",
                hint="Set micro_batch_size lower; the result stays the same.",
                code="out_of_memory",
            ) from error


class _ScaledSteps(TrainerCallback):  # type: ignore[misc]
    """Shortens the next step by its learning rate. Shorter gradients would not: AdamW divides them by their size."""

    def __init__(self, scale: Callable[[], float]) -> None:
        self.scale = scale
        self.rates: list[Any] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **_: Any) -> None:
        self.rates = []
        if (scale := self.scale()) == 1:
            return
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if None in self.rates:
            raise TrainingError(
                f"Step {state.global_step + 1} is to be shortened, and the optimiser has no learning rate.",
                hint="Use an optimiser with one, or a method or gate without anchors.",
                code="no_learning_rate",
            )
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale

    def on_optimizer_step(self, args: Any, state: Any, control: Any, *, optimizer: Any, **_: Any) -> None:
        # There are none where the step was whole.
        for group, rate in zip(optimizer.param_groups, self.rates, strict=False):
            group["lr"] = rate


def _indices(batches: Sequence[Rows]) -> list[int]:
    return [row for batch in batches for row in batch["row"].tolist()]
