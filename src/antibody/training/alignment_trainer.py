"""Stage 1 as a `trl.SFTTrainer`."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from antibody.data import corpus
from antibody.data.preparation import PREPARED, records_of
from antibody.training.configs import AntibodyAlignmentConfig
from antibody.training.objective_trainer import ObjectiveTrainer, Rows, StepRows
from antibody.training.row_stream import RowStream

logger = logging.getLogger(__name__)


class AntibodyAlignmentTrainer(ObjectiveTrainer):
    """Stage 1: aligns a model so that later fine-tuning finds the harmful loss flat.

    Args:
        train_dataset: ``D_align``, harmful prompts with refusals, mixed with benign rows.
        harmful_dataset: ``D_harm``, harmful prompts with harmful responses, for a method that looks at them. Default:
            the embedded stand-ins, which carry no usable content; give real rows for a real model.
    """

    config_class = AntibodyAlignmentConfig

    def __init__(
        self,
        model: Any,
        args: AntibodyAlignmentConfig | None = None,
        *positional: Any,
        harmful_dataset: Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, *positional, **kwargs)
        if not self._attacks:
            return
        if harmful_dataset is None:
            logger.warning("No harmful_dataset: the embedded stand-ins are used, which carry no real harm.")
            harmful_dataset = self._prepared(corpus.harmful("train"), self.args.max_length, refusals=True)
        elif PREPARED not in harmful_dataset.column_names:
            harmful_dataset = self._prepared(
                records_of(harmful_dataset, name="harmful"), self.args.max_length, refusals=True
            )
        self.harmful = RowStream(harmful_dataset, seed=self.args.seed)

    @property
    def _attacks(self) -> bool:
        """Whether the method looks at harmful rows."""
        return not self.objective.batches.isdisjoint({"harmful", "refusal"})

    def _order(self) -> dict[str, Any]:
        return super()._order() | ({"harmful rows": len(self.harmful.rows)} if self._attacks else {})

    def _step_rows(self, gathered: Sequence[Rows]) -> StepRows:
        batches = {"align": self._split(gathered)}
        if self._attacks:
            [size] = self.processes.total(self._present(gathered))
            harmful = self._drawn(self.harmful, self.state.global_step * self.step_rows, int(size))
            batches["harmful"] = self._split(harmful)
            if "refusal" in self.objective.batches:
                batches["refusal"] = self._split(harmful, "refusal_")
        return StepRows(batches, gathered)
