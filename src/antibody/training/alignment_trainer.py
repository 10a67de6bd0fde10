"""Stage 1 as a `trl.SFTTrainer`."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from antibody.data import corpus
from antibody.data.collation import STAND_IN
from antibody.data.preparation import PREPARED, records_of
from antibody.training.configs import AntibodyAlignmentConfig
from antibody.training.objective_trainer import ObjectiveTrainer, Rows, StepRows
from antibody.training.row_stream import RowStream

logger = logging.getLogger(__name__)


class AntibodyAlignmentTrainer(ObjectiveTrainer):
    """Stage 1: aligns a model so that later fine-tuning finds the harmful loss flat.

    Args:
        train_dataset: ``D_align``, harmful prompts with refusals, mixed with benign rows.
        harmful_dataset: ``D_harm``, harmful prompts with harmful responses. Default: the embedded stand-ins, which
            carry no usable content; give real rows for a real model.
    """

    config_class = AntibodyAlignmentConfig
    needs_refusals = False

    def __init__(
        self,
        model: Any,
        args: AntibodyAlignmentConfig | None = None,
        *positional: Any,
        harmful_dataset: Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, *positional, **kwargs)
        if self.args.method == "sft":
            return
        if harmful_dataset is None:
            logger.warning("No harmful_dataset: the embedded stand-ins are used, which carry no real harm.")
            harmful_dataset = self._prepared(corpus.harmful("train"), self.args.max_length, refusals=True)
        elif PREPARED not in harmful_dataset.column_names:
            harmful_dataset = self._prepared(
                records_of(harmful_dataset, name="harmful"), self.args.max_length, refusals=True
            )
        self.harmful = RowStream(harmful_dataset, seed=self.args.seed)

    def _order(self) -> dict[str, Any]:
        return super()._order() | ({} if self.args.method == "sft" else {"harmful rows": len(self.harmful.rows)})

    def _step_rows(self, gathered: Sequence[Rows]) -> StepRows:
        align = {"align": self._split(gathered)}
        if self.args.method == "sft":
            return StepRows(align, gathered)
        [size] = self.processes.total(sum(int((batch["row"] != STAND_IN).sum()) for batch in gathered))
        batches = self._drawn(self.harmful, self.state.global_step * self.step_rows, int(size))
        return StepRows(
            align | {"harmful": self._split(batches), "refusal": self._split(batches, "refusal_")}, gathered
        )
