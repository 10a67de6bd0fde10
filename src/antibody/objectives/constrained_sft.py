"""Constrained SFT (Qi et al., arXiv 2406.05946, section 4): fine-tuning whose first tokens stay near the aligned model.

    L   = −Σ_i Σ_t (2/β_t) log σ(β_t Δ_t) / Σ_i N_i       Δ_t = log π_θ(y_t|x, y_<t) − log π_aligned(y_t|x, y_<t)
    ∇L  = −Σ_i Σ_t w_t ∇log π_θ(y_t|x, y_<t) / Σ_i N_i    w_t = 2 (1 − σ(β_t Δ_t))

At the aligned model every w_t is 1, which is plain SFT. Where a token has become likelier than it was there, its w_t
falls towards 0, the faster the larger β_t is: what the first tokens may gain is bounded. w_t is at least 1e-3, as in
the published code (appendix D.2 for the gradient).

π_aligned is the model that training began with: its trainable parameters are kept, and each step reads its rows with
them first. That is one more forward pass, and right for any order of rows.

Published (code's README): β = 0.1, of the first token 5 β, of tokens 2 to 5 20 β; full parameters, AdamW, lr 2e-5,
batch 64, 25 epochs of 100 harmful rows or 3 of a task's, warm-up.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from antibody.objectives.gradients import copies, put, restored, scale_gradients
from antibody.objectives.step import SEVERAL_PASSES, Situation, State, Step, StepResult

LEAST_WEIGHT = 1e-3


class ConstrainedSFT:
    """One fine-tuning step. Reads the batch ``rows``.

    Args:
        beta: β, of the tokens after the prefix.
        first_factor: β_1 / β.
        prefix_factor: β_t / β of the other tokens of the prefix.
        prefix_length: Tokens of the prefix.
    """

    batches = frozenset({"rows"})
    judges = False
    refuses: Mapping[Situation, str] = {
        **SEVERAL_PASSES,
        "sharded": "it keeps a copy of the parameters, which a checkpoint in parts does not hold",
    }

    def __init__(
        self,
        *,
        beta: float = 0.1,
        first_factor: float = 5.0,
        prefix_factor: float = 20.0,
        prefix_length: int = 5,
    ) -> None:
        self.beta = beta
        self.first_factor = first_factor
        self.prefix_factor = prefix_factor
        self.prefix_length = prefix_length
        self.aligned: list[Tensor] | None = None

    def __call__(self, step: Step) -> StepResult:
        if self.aligned is None:
            self.aligned = copies(step.parameters)
        # A resumed state comes from a file.
        self.aligned = [value.to(parameter) for value, parameter in zip(self.aligned, step.parameters, strict=True)]
        pieces = step.micro_batches("rows")
        # 1. log π_aligned
        with restored(step.parameters), torch.no_grad():
            put(step.parameters, self.aligned)
            before = [step.token_likelihoods(batch).nll for batch in pieces]
        nll = tokens = weight_sum = 0.0
        for batch, aligned_nll in zip(pieces, before, strict=True):
            # 2. w_t
            now = step.token_likelihoods(batch)
            gained = aligned_nll - now.nll.detach()
            weights = (2 * torch.sigmoid(-self._betas(gained) * gained)).clamp(min=LEAST_WEIGHT) * now.present
            # 3. Σ w_t NLL_t
            step.backward((weights * now.nll).sum())
            nll += now.nll.detach().sum().item()
            tokens += now.present.sum().item()
            weight_sum += weights.sum().item()
        nll, tokens, weight_sum = step.processes.total(nll, tokens, weight_sum)
        step.processes.sum_gradients(step.parameters)
        scale_gradients(step.parameters, 1 / tokens)
        return StepResult(loss=nll / tokens, metrics={"token_weight": weight_sum / tokens})

    def _betas(self, like: Tensor) -> Tensor:
        """``[R]``, β_t of the t-th response token."""
        betas = torch.full(like.shape[1:], self.beta, dtype=like.dtype, device=like.device)
        betas[: self.prefix_length] = self.beta * self.prefix_factor
        betas[: min(1, self.prefix_length)] = self.beta * self.first_factor
        return betas

    def state_dict(self) -> State:
        return {} if self.aligned is None else {"aligned": self.aligned}

    def load_state_dict(self, state: State) -> None:
        aligned = state.get("aligned")
        self.aligned = aligned if isinstance(aligned, list) else None
