"""Vaccine (arXiv 2402.01109): alignment that withstands a drift of the hidden states.

    ε_l = ρ ∇_{e_l} L_align / ‖(∇_{e_1} L_align, …, ∇_{e_n} L_align)‖
    δ   = ∇_θ L_align(θ; e_l + ε_l)

e_l is what the l-th attention block gives, for every row and position of the batch; the norm is over all of them. ε is
a constant: no second derivatives. Two forward and backward passes a step; between them ∇_{e_l} is kept of all
micro-batches, since the norm needs every row.

Published (code's README and script ``Vaccine.sh``): ρ = 2; LoRA, AdamW, lr 1e-3 with a cosine schedule and 10% warm-up,
weight decay 0.1, batch 5, 50 epochs. Later work by the same authors (Booster's ``vaccine.sh``): ρ = 5, lr 5e-4,
constant, batch 10, 20 epochs of 5000 rows.
"""

import math
from collections.abc import Mapping

import torch

from antibody.objectives.gradients import mean_gradient, set_gradients
from antibody.objectives.step import SEVERAL_PASSES, Situation, State, Step, StepResult


class Vaccine:
    """One alignment step.

    Args:
        rho: ρ, the length of the perturbation.
    """

    batches = frozenset({"align"})
    judges = False
    refuses: Mapping[Situation, str] = {
        **SEVERAL_PASSES,
        "recomputed": "hidden states that are computed again in backward would not be the perturbed ones",
        "sharded": "a sharded block is gathered for what it returns, and hidden states that were moved are not that",
    }

    def __init__(self, *, rho: float = 2.0) -> None:
        self.rho = rho

    def __call__(self, step: Step) -> StepResult:
        # 1. ∇_{e_l}: of the sum over the tokens, whose direction is that of the mean
        pieces, squares, nll, tokens = [], 0.0, 0.0, 0.0
        for batch in step.micro_batches("align"):
            likelihoods, outputs = step.attended(batch)
            gradients = torch.autograd.grad(likelihoods.nll.sum(), outputs)
            squares += sum(gradient.double().square().sum().item() for gradient in gradients)
            nll += likelihoods.nll.detach().sum().item()
            tokens += likelihoods.tokens.sum().item()
            pieces.append((batch, gradients))
        squares, nll, tokens = step.processes.total(squares, nll, tokens)
        # 2. ε_l, which is 0 where there is no gradient to follow
        length = self.rho / math.sqrt(squares) if squares > 0 else 0.0
        # 3. δ = ∇_θ L_align at the moved hidden states
        gradient, loss_perturbed = mean_gradient(
            step,
            pieces,
            lambda piece: step.attended(piece[0], [length * component for component in piece[1]])[0],
        )
        set_gradients(step.parameters, gradient)
        return StepResult(
            loss=nll / tokens,
            metrics={"loss_perturbed": loss_perturbed, "grad_norm_hidden": math.sqrt(squares) / tokens},
        )

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing outlives a step."""
