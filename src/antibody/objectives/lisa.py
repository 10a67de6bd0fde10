"""Lisa (arXiv 2405.18641): fine-tuning in two states that take turns, each held near where the other left off.

    K_1 steps on alignment rows, then K_2 on the user's, and so on, each step along
    δ = ∇L + ρ (θ − θ_switch)                    of L + ρ/2 ‖θ − θ_switch‖²

L is the plain cross-entropy of the state's rows; θ_switch are the parameters at the last change of state, at first
those training began with. As in the published code, training begins on alignment rows, and the user's batch of such a
step is passed over. That code leaves the proximal term out of the first tenth of training; the algorithm has it always,
and so it is here.

Published (script ``lisa_poison_ratio.sh``): ρ = 1, K_1 = 100, K_2 = 900; LoRA, AdamW, lr 1e-5, batch 5, 20 epochs,
10000 alignment rows. Here the alignment rows are the anchors that an aligned run holds.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from antibody.errors import UsageError
from antibody.objectives.gradients import copies, set_gradients, token_mean_gradient
from antibody.objectives.step import Situation, State, Step, StepResult


class Lisa:
    """One fine-tuning step. Reads the batches ``rows`` and ``anchors``.

    Args:
        rho: ρ, the strength of the pull to θ_switch.
        align_steps: K_1.
        finetune_steps: K_2.
    """

    batches = frozenset({"rows", "anchors"})
    judges = False
    refuses: Mapping[Situation, str] = {
        "sharded": "it keeps a copy of the parameters, which a checkpoint in parts does not hold",
    }

    def __init__(self, *, rho: float = 1.0, align_steps: int = 100, finetune_steps: int = 900) -> None:
        if align_steps < 1 or finetune_steps < 1:
            raise UsageError(
                f"align_steps={align_steps} and finetune_steps={finetune_steps} leave out a state.",
                hint="Give each at least one step; method sft has the user's rows alone.",
                code="out_of_range",
            )
        self.rho = rho
        self.align_steps = align_steps
        self.finetune_steps = finetune_steps
        self.steps = 0
        self.switch: list[Tensor] | None = None

    def __call__(self, step: Step) -> StepResult:
        # 1. Which state this is, and θ_switch where it begins
        place = self.steps % (self.align_steps + self.finetune_steps)
        aligning = place < self.align_steps
        if self.switch is None or place in {0, self.align_steps}:
            self.switch = copies(step.parameters)
        # A resumed state comes from a file.
        self.switch = [value.to(parameter) for value, parameter in zip(self.switch, step.parameters, strict=True)]
        # 2. δ = ∇L + ρ (θ − θ_switch)
        gradient, loss = token_mean_gradient(step, step.micro_batches("anchors" if aligning else "rows"))
        squares = 0.0
        for parameter, component, origin in zip(step.parameters, gradient, self.switch, strict=True):
            drift = parameter.detach() - origin
            squares += drift.double().square().sum().item()
            component.add_(drift, alpha=self.rho)
        set_gradients(step.parameters, gradient)
        self.steps += 1
        metrics = {"aligning": float(aligning), "drift": math.sqrt(squares)}
        if aligning:
            return StepResult(loss=None, metrics=metrics | {"loss_anchor": loss})
        return StepResult(loss=loss, metrics=metrics)

    def state_dict(self) -> State:
        return {"steps": self.steps} | ({} if self.switch is None else {"switch": self.switch})

    def load_state_dict(self, state: State) -> None:
        steps, switch = state["steps"], state.get("switch")
        assert isinstance(steps, int | float), "a number"
        self.steps = int(steps)
        self.switch = switch if isinstance(switch, list) else None
