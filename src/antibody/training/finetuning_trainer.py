"""Stage 2 as a `trl.SFTTrainer`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from antibody.data import corpus
from antibody.data.collation import STAND_IN
from antibody.data.preparation import PREPARED, prepare_anchors, records_of
from antibody.data.records import Record
from antibody.data.sources import load_records
from antibody.errors import TrainingError, UsageError
from antibody.files import sha256_of
from antibody.objectives.step import Reference
from antibody.objectives.weights import AntibodyWeights
from antibody.screening.reading import Row
from antibody.screening.screen import Judged, Screen
from antibody.training.agreement import agreed
from antibody.training.batches import WithoutWithheld
from antibody.training.configs import AntibodyConfig
from antibody.training.dropping import chosen_rows, keep_choice, shared_rows
from antibody.training.methods import FINETUNINGS
from antibody.training.objective_trainer import ObjectiveTrainer, Rows, StepRows
from antibody.training.provided import Provided
from antibody.training.reading import read_shared, shared_screen, shared_states
from antibody.training.references import references
from antibody.training.row_stream import RowStream

logger = logging.getLogger(__name__)

# Harmful stand-ins that a screen is made on, and as many that it is calibrated on; of benign rows twice as many.
SCREEN_ROWS = 64


class AntibodyTrainer(ObjectiveTrainer):
    """Stage 2: fine-tunes on a user's rows, each weighed by the model's own judgement of it.

    Args:
        screen: Judges the rows for the gate, in the model as it is before the first step. Default: made then, on the
            embedded stand-ins, which are less varied than real rows.
        anchors: Rows of the alignment data, harmful prompts with refusals among benign rows, that share every step
            under ``gate="anchor"``, and that Lisa and SafeInstr train on. Default: the embedded ones.
    """

    config_class = AntibodyConfig

    def __init__(
        self,
        model: Any,
        args: AntibodyConfig | None = None,
        *positional: Any,
        screen: Screen | None = None,
        anchors: Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        self._given_anchors, self.screen = anchors, screen
        super().__init__(model, args, *positional, **kwargs)
        if self.args.gate != "off":
            self.add_callback(_BeforeTheFirstStep(self._judge_upload))
        if "anchors" in self.objective.batches:
            if anchors is None or PREPARED not in anchors.column_names:
                anchors = prepare_anchors(self._anchors(), self.tokenizer, max_length=self.args.max_length)
            # A part of a prepared data set has the indices of the whole.
            rows = [row | {"row": index} for index, row in enumerate(anchors)]
            self.anchors = RowStream(rows, seed=self.args.seed)
            self._anchors_sha256 = sha256_of(_pairs(rows))

    def _anchors(self) -> list[Record]:
        if self._given_anchors is not None:
            return records_of(self._given_anchors, name="anchors")
        logger.warning("No anchors: the embedded ones are used.")
        return load_records("embedded:anchors").records

    def _trained_rows(self, records: list[Record], args: AntibodyConfig) -> list[Record]:
        if args.gate != "off":
            self._refuse_plain_text(records)
        method = FINETUNINGS[args.method]
        anchors = self._anchors() if method.reads_anchors else []
        provided = Provided(anchors, self.refusals, args.seed)
        if not method.drops:
            return method.trained_rows(records, provided, args.options)
        folder = Path(args.output_dir)
        with agreed("cpu" if args.use_cpu else "auto"):
            chosen = chosen_rows(method, records, provided, args.options, folder)
        kept = shared_rows(records, chosen)
        keep_choice(folder, records, kept, args.options)
        return kept

    def _refuse_plain_text(self, records: list[Record]) -> None:
        """It gets no chat template, and an aligned run's screen, made on turns, would judge what it does not know."""
        plain = next((record for record in records if isinstance(record.prompt, str)), None)
        if plain is None:
            return
        if self.screen is None:
            logger.warning("Prompts are plain text, without a chat template, and will be judged by a screen of turns.")
            return
        raise UsageError(
            f"The prompt of row {plain.line} is plain text, which gets no chat template. The screen was made on turns.",
            hint='Give each prompt as [{"role": "user", "content": ...}], and each completion likewise.',
            code="no_turns",
        )

    def _refuse_what_breaks_the_method(self) -> None:
        super()._refuse_what_breaks_the_method()
        size = self.step_rows
        last = len(self.train_dataset) % size if not self.args.dataloader_drop_last else 0
        if self.objective.judges and self.args.gate == "off" and 1 in {size, last}:
            raise UsageError(
                f"{len(self.train_dataset)} rows in batches of {size} leave a row alone, whose weight would be 1.",
                hint="Choose another batch size of at least 2, or a gate, which judges a row without others.",
                code="one_row_batch",
            )

    def _trained_order(self, order: Any) -> Any:
        return order if self.args.gate == "off" else WithoutWithheld(order, self._is_withheld)

    def _is_withheld(self, row: int) -> bool:
        assert self.audit.screened is not None, "screened before the first step"
        threshold: float = self.args.gate_threshold
        return self.audit.screened.benign_probabilities[row] < threshold

    def _judge_upload(self) -> None:
        """By the model as it is before the first step, as are the anchors. A resumed training was given both.

        Harmful rows slip through most where most rows are harmful, and a batch that is left with them alone would be
        theirs. So the anchors' floor is no less than the share of the upload that is withheld.
        """
        if self.audit.screened is None:
            self.audit.screened = self._judged()
        if self.args.gate == "anchor":
            withheld = [self._is_withheld(row) for row in range(len(self.audit.screened.scores))]
            assert isinstance(self.objective, AntibodyWeights), "no other objective takes anchors"
            self.objective.anchor_floor = max(self.args.anchor_floor, sum(withheld) / len(withheld))
            # No step follows them where all rows are withheld.
            if not all(withheld) and not self.objective.references:
                self.objective.references = self._references()

    def _references(self) -> list[Reference]:
        if self.state.global_step:
            raise TrainingError(
                "The checkpoint does not say what the aligned model expected on the anchors.",
                hint="An earlier version wrote it. Begin again.",
                code="checkpoint_incomplete",
            )
        # The whole head is read, as in a step.
        size = self.args.micro_batch_size or self.args.per_device_train_batch_size
        return read_shared(self, _pairs(self.anchors.rows), references, "Reading the anchors", size)

    def _judged(self) -> Judged:
        if self.screen is None:
            logger.warning(
                "No screen: one is made on the embedded stand-ins. It protects only a model that was aligned; "
                "`antibody.aligned` takes model, screen and anchors from an aligned run."
            )
            harmful, benign = corpus.harmful("train"), corpus.benign()
            few = SCREEN_ROWS
            self.screen = shared_screen(
                self, harmful[:few], benign[: 2 * few], harmful[few : 2 * few], benign[2 * few : 4 * few]
            ).screen
        return self.screen.judge(shared_states(self, _pairs(self.train_dataset), "Screening the upload"))

    def _order(self) -> dict[str, Any]:
        anchors = {"anchors": self._anchors_sha256} if "anchors" in self.objective.batches else {}
        return super()._order() | anchors

    def _step_rows(self, gathered: Sequence[Rows]) -> StepRows:
        kept = gathered if self.audit.screened is None else self._kept(gathered)
        batches = {"rows": self._split(kept)}
        if "refusals" in self.objective.batches:
            batches["refusals"] = self._split(kept, "refusal_")
        if "anchors" in self.objective.batches:
            batches["anchors"] = self._split(self._step_anchors(gathered))
        return StepRows(batches, kept, withheld=self._present(gathered) - self._present(kept))

    def _step_anchors(self, gathered: Sequence[Rows]) -> list[Rows]:
        """As many as the method says, or as the step has rows of the user."""
        size = self.args.anchor_rows
        if size is not None:
            return self._drawn(self.anchors, self.state.global_step * size, size)
        [rows] = self.processes.total(self._present(gathered))
        return self._drawn(self.anchors, self.state.global_step * self.step_rows, int(rows))

    def _kept(self, gathered: Sequence[Rows]) -> list[Rows]:
        """Without the rows that the gate withholds, and without those that stand in for none."""
        kept = []
        for batch in gathered:
            keep = torch.tensor([row != STAND_IN and not self._is_withheld(row) for row in batch["row"].tolist()])
            if keep.any():
                kept.append(_rows_of(batch, keep.to(batch["row"].device)))
        return kept


def _pairs(rows: Any) -> list[Row]:
    return [(row["prompt_ids"], row["response_ids"]) for row in rows]


def _rows_of(batch: Rows, keep: Tensor) -> Rows:
    return {key: tensor[keep] for key, tensor in batch.items()}


class _BeforeTheFirstStep(TrainerCallback):  # type: ignore[misc]
    """Once the model is where it will be trained, and a resumed one's state is there."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.action()
