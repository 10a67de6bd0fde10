"""The Antibody algorithm written plainly, as published code runs it: our trainers are timed against and checked by it.

Nothing is shared, cached or left out. Fine-tuning makes three forward passes and one backward; alignment makes five
passes and copies the model at every step. (ASSUMPTION: the fifth pass is the harmful gradient at θ, taken once for the
perturbation and once more for the sharpness.) Full logits everywhere. The values of the method's constants are the
published ones (arXiv 2603.00498 and its code).
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Trainer

TAU = 1.0
RHO, ETA, LAMBDA_REFUSAL, MOMENTUM = 0.1, 5.0, 0.05, 0.99
IGNORED = -100


class Likelihood(NamedTuple):
    """``NLL(y|x)`` and the number of response tokens of each row, both ``[B]``."""

    nll: Tensor
    tokens: Tensor


def likelihood(model: Any, inputs: Mapping[str, Tensor], part: str = "") -> Likelihood:
    """One forward pass over the tensors whose names begin with ``part``."""
    logits = model(input_ids=inputs[f"{part}input_ids"], attention_mask=inputs[f"{part}attention_mask"]).logits
    targets = inputs[f"{part}labels"][:, 1:]
    token_nll = functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets)
    return Likelihood(token_nll.sum(dim=1), (targets != IGNORED).sum(dim=1))


class TextbookFinetuning(Trainer):  # type: ignore[misc]
    """Stage 2. A batch holds ``input_ids`` and so on of the rows, and with ``refusal_`` those of the refusals."""

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        # 1. r_i = ce(y_r|x_i) − ce(y_i|x_i)
        with torch.no_grad():
            refusal = likelihood(model, inputs, "refusal_")
            compliance = likelihood(model, inputs)
            r = refusal.nll / refusal.tokens - compliance.nll / compliance.tokens
        # 2. w = softmax(r/τ)
        w = torch.softmax(r / TAU, dim=0)
        # 3. L = Σ_i w_i NLL(y_i|x_i) / Σ_i w_i N_i
        nll, tokens = likelihood(model, inputs)
        loss = (w * nll).sum() / (w * tokens).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


class TextbookAlignment(Trainer):  # type: ignore[misc]
    """Stage 1. A batch holds ``input_ids`` and so on of ``D_align``, with ``harmful_`` those of ``D_harm``, and with
    ``refusal_`` those of the harmful prompts answered by refusals.
    """

    lambda_average: Tensor | None = None

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        # 1. g_h = ∇L_harm(θ)
        g_h = gradient(model, inputs, "harmful_")[1]
        # 2. θ' = θ − ρ g_h / ‖g_h‖
        attacked = copy.deepcopy(model)
        norm = dot(g_h, g_h).sqrt()
        with torch.no_grad():
            for parameter, g in zip(trainable(attacked), g_h, strict=True):
                parameter.sub_(RHO * g / norm)
        # 3. g_p = ∇L_harm(θ'), g_s = ∇L_harm(θ) − g_p
        g_p = gradient(attacked, inputs, "harmful_")[1]
        g_s = [h - p for h, p in zip(gradient(model, inputs, "harmful_")[1], g_p, strict=True)]
        # 4. g_r = ∇L_refusal(θ')
        g_r = gradient(attacked, inputs, "refusal_")[1]
        # 5. g_a = ∇L_align(θ)
        loss, g_a = gradient(model, inputs, "")
        # 6. δ = g_a + λ_t g_s + λ_refusal g_r, with λ_t = max(0, η − cos(g_a, g_s)) averaged
        cosine = dot(g_a, g_s) / (dot(g_a, g_a) * dot(g_s, g_s)).sqrt()
        lambda_t = (ETA - cosine).clamp(min=0)
        previous = lambda_t if self.lambda_average is None else self.lambda_average
        self.lambda_average = lambda_t = MOMENTUM * previous + (1 - MOMENTUM) * lambda_t
        for parameter, a, s, r in zip(trainable(model), g_a, g_s, g_r, strict=True):
            parameter.grad = a + lambda_t * s + LAMBDA_REFUSAL * r
        return loss


def gradient(model: Any, inputs: Mapping[str, Tensor], part: str) -> tuple[Tensor, list[Tensor]]:
    """The mean cross-entropy a response token, and its gradient."""
    nll, tokens = likelihood(model, inputs, part)
    loss = nll.sum() / tokens.sum()
    return loss.detach(), list(torch.autograd.grad(loss, trainable(model)))


def trainable(model: Any) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
