"""Plain supervised fine-tuning: ``L = Σ_i NLL(y_i|x_i) / Σ_i N_i``. The undefended baseline of both stages."""

from collections.abc import Mapping

from antibody.objectives.gradients import set_gradients, token_mean_gradient
from antibody.objectives.step import Situation, State, Step, StepResult


class PlainSFT:
    """The token mean of the cross-entropy over the batch of that name."""

    judges = False
    refuses: Mapping[Situation, str] = {}

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self.batches = frozenset({batch})

    def __call__(self, step: Step) -> StepResult:
        gradient, loss = token_mean_gradient(step, step.micro_batches(self.batch))
        set_gradients(step.parameters, gradient)
        return StepResult(loss=loss)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing outlives a step."""
