"""Stage 2: weigh every row of a batch by the model's own judgement (arXiv 2603.00498, section 4.2).

    r_i = ce(y_r|x_i) − ce(y_i|x_i)         score ``mean``, the published code
    r_i = NLL(y_r|x_i) − NLL(y_i|x_i)       score ``sum``, the paper's log π(y_i|x_i) / π(y_r|x_i)
    w   = softmax(r / τ)                    over the whole batch of an optimiser step
    L   = Σ_i w_i NLL(y_i|x_i) / N_i                    average ``row``, ours
    L   = Σ_i w_i NLL(y_i|x_i) / Σ_i w_i N_i            average ``token``, published

An aligned model finds a refusal likely on a harmful prompt, so that row's r_i is low and it teaches little.
No gradient flows through w.

Averaged over rows, w_i is what row i has of the loss, as a softmax promises. Averaged over tokens a row has w_i N_i of
it: an answer of sixty tokens among labels of two has thirty times its weight back (docs/robustness-choices.md).

The softmax's normaliser cancels in L. With ``e_i = exp(r_i/τ − c) / n_i``, n_i = N_i (``row``) or 1 (``token``), the
gradients of ``Σ e_i NLL_i`` are accumulated over micro-batches and processes and divided once by the accumulated
``Σ e_i N_i``: one pass, whatever the split. c is the largest r_i/τ so far in any process; when a larger one comes, what
was accumulated is scaled to it, so that nothing overflows.

Where there is a gate (`antibody.objectives.gate`), the rows it withholds are not among the batch, and anchors may share
the step with the rest: they hold the model near the aligned one, and shorten steps where it drifts.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from antibody.objectives.gate import anchor_share, step_scale
from antibody.objectives.gradients import cosine, dot, mean_gradient, scale_gradients, take_gradient
from antibody.objectives.step import (
    SEVERAL_PASSES,
    Batch,
    Reference,
    RowLikelihoods,
    RowWeights,
    Situation,
    State,
    Step,
    StepResult,
)


def mean_score(compliance: RowLikelihoods, refusal: RowLikelihoods) -> Tensor:
    """``[B]``, nats a token. Low where the model would rather refuse."""
    return refusal.ce - compliance.ce


def sum_score(compliance: RowLikelihoods, refusal: RowLikelihoods) -> Tensor:
    """``[B]``, nats. Grows with the lengths of both answers."""
    return refusal.nll - compliance.nll


SCORES = {"mean": mean_score, "sum": sum_score}

# n_i of rows with so many tokens. A padding row has none, and no weight.
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "row": lambda tokens: tokens.clamp(min=1),
    "token": torch.ones_like,
}

# m, what D̄ keeps at every step. ASSUMPTION: a mean of about three steps is less noisy and follows a sudden drift.
DRIFT_MOMENTUM = 0.7


class AntibodyWeights:
    """One fine-tuning step. Reads the batches ``rows`` and ``refusals``, split alike, and perhaps ``anchors``.

    Args:
        score: A key of `SCORES`.
        tau: τ, the softmax's temperature; infinity weighs all rows alike: averaged over tokens, that is plain SFT.
        average: A key of `AVERAGES`.
        anchor_floor: φ_0, the anchors' least share of a step; None where there are no anchors.
        anchor_scale: κ.
        anchor_tolerance: D_0, nats a token.

    Attributes:
        references: What the aligned model expected on each anchor, by the anchor's index. Set before the first step.
        mean_drift: D̄; None before the first step that has anchors.
    """

    judges = True
    refuses: Mapping[Situation, str] = SEVERAL_PASSES

    def __init__(
        self,
        *,
        score: str,
        tau: float,
        average: str = "row",
        anchor_floor: float | None = None,
        anchor_scale: float = 8.0,
        anchor_tolerance: float = 0.02,
    ) -> None:
        self.score = SCORES[score]
        self.tau = tau
        self.counted = AVERAGES[average]
        self.anchor_floor = anchor_floor
        self.anchor_scale = anchor_scale
        self.anchor_tolerance = anchor_tolerance
        self.mean_drift: float | None = None
        self.references: list[Reference] = []
        self.batches = frozenset({"rows", "refusals"} | (set() if anchor_floor is None else {"anchors"}))

    def __call__(self, step: Step) -> StepResult:
        offset = -math.inf
        weighted_nll = weighted_tokens = 0.0
        judged: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows, refusals in zip(step.micro_batches("rows"), step.micro_batches("refusals"), strict=True):
            # 1. r_i, with the current model; the compliance forward that the gradient needs also gives its likelihood
            compliance, refusal = step.compared(rows, refusals)
            score = self.score(compliance.detach(), refusal)
            present = compliance.tokens > 0

            # 2. e_i, at the largest r_i/τ seen so far
            logits = (score / self.tau).double().masked_fill(~present, -math.inf)
            judged.append((score, logits, present))
            previous, offset = offset, max(offset, step.processes.largest(logits.max().item()))
            rescale = math.exp(previous - offset)
            scale_gradients(step.parameters, rescale)
            exponentials = (logits - offset).exp() / self.counted(compliance.tokens)

            # 3. Σ e_i NLL_i and Σ e_i N_i
            step.backward((exponentials.to(compliance.nll.dtype) * compliance.nll).sum())
            weighted_nll = rescale * weighted_nll + (exponentials * compliance.nll.detach()).sum().item()
            weighted_tokens = rescale * weighted_tokens + (exponentials * compliance.tokens).sum().item()
        if not judged:
            # The gate withheld the batch in every process: there is no step.
            [withheld] = step.processes.total(step.withheld)
            return StepResult(loss=None, metrics={"rows_withheld": withheld})
        scores, logits, present = (torch.cat(parts) for parts in zip(*judged, strict=True))
        exponentials = (logits - offset).exp()
        weighted_nll, weighted_tokens, normaliser, squares, score_sum, kept = step.processes.total(
            weighted_nll,
            weighted_tokens,
            exponentials.sum().item(),
            exponentials.square().sum().item(),
            scores[present].sum().item(),
            present.sum().item(),
        )
        step.processes.sum_gradients(step.parameters)
        scale_gradients(step.parameters, 1 / weighted_tokens)
        result = StepResult(
            loss=weighted_nll / weighted_tokens,
            metrics={"score_mean": score_sum / kept, "effective_rows": normaliser**2 / squares},
            rows=RowWeights(scores=scores, weights=exponentials / normaliser),
        )
        return self._with_anchors(step, result, kept)

    def _with_anchors(self, step: Step, user: StepResult, kept: float) -> StepResult:
        """δ = (1 − φ) g_user + φ κ g_anchor and s, where there are anchors."""
        [withheld] = step.processes.total(step.withheld)
        metrics = user.metrics | {"rows_withheld": withheld}
        if self.anchor_floor is None:
            return replace(user, metrics=metrics)
        g_user = take_gradient(step.parameters)
        g_anchor, drift = mean_gradient(step, step.micro_batches("anchors"), partial(self._drift, step))
        share = anchor_share(kept, kept + withheld, self.anchor_floor)
        agreement = cosine(dot(g_user, g_anchor), math.sqrt(dot(g_user, g_user)), math.sqrt(dot(g_anchor, g_anchor)))
        for parameter, u, a in zip(step.parameters, g_user, g_anchor, strict=True):
            parameter.grad = u.mul_(1 - share).add_(a, alpha=share * self.anchor_scale)
        self.mean_drift = (
            drift if self.mean_drift is None else DRIFT_MOMENTUM * self.mean_drift + (1 - DRIFT_MOMENTUM) * drift
        )
        scale = step_scale(self.mean_drift, self.anchor_tolerance)
        metrics |= {"anchor_share": share, "anchor_drift": drift, "anchor_cosine": agreement, "step_scale": scale}
        return replace(user, metrics=metrics, scale=scale)

    def _drift(self, step: Step, batch: Batch) -> tuple[Tensor, Tensor]:
        """D_j of each anchor of a micro-batch, and 1; 0 and 0 of a row that only stands in."""
        # A row that stands in has a negative index, and no position of its own.
        nothing = Reference(*(part[:0] for part in self.references[0]))
        chosen = [self.references[row] if row >= 0 else nothing for row in batch["row"].tolist()]
        reference = Reference(*(torch.cat(parts).to(batch["row"].device) for parts in zip(*chosen, strict=True)))
        found = step.divergences(batch, reference)
        return found.kl / found.tokens.clamp(min=1), (found.tokens > 0).long()

    def state_dict(self) -> State:
        if not self.references:
            return {}
        parts = {f"reference_{name}": [getattr(each, name) for each in self.references] for name in Reference._fields}
        return {"mean_drift": self.mean_drift, **parts}

    def load_state_dict(self, state: State) -> None:
        self.mean_drift = cast(float | None, state.get("mean_drift"))
        parts = (state.get(f"reference_{name}", []) for name in Reference._fields)
        self.references = [Reference(*row) for row in zip(*parts, strict=True)]
