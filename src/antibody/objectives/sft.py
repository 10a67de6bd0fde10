"""Plain supervised fine-tuning: ``L = Σ_i NLL(y_i|x_i) / Σ_i N_i``. The undefended baseline of both stages."""

from antibody.objectives.gradients import token_mean_gradient
from antibody.objectives.step import Step, StepResult


class PlainSFT:
    """The token mean of the cross-entropy over the batch of that name."""

    def __init__(self, batch: str) -> None:
        self.batch = batch

    def __call__(self, step: Step) -> StepResult:
        gradient, loss = token_mean_gradient(step, step.micro_batches(self.batch))
        for parameter, component in zip(step.parameters, gradient, strict=True):
            parameter.grad = component
        return StepResult(loss=loss)

    def state_dict(self) -> dict[str, float | None]:
        return {}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Nothing outlives a step."""
