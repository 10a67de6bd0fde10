"""Algebra on gradients kept as one list of tensors, in the order of the parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor

from antibody.objectives.step import Batch, Step

Gradient = list[Tensor]


def take_gradient(parameters: Sequence[Tensor]) -> Gradient:
    """Moves the parameters' ``.grad`` out. A parameter that took no part has a gradient of zero."""
    gradient = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return gradient


def dot(a: Gradient, b: Gradient) -> float:
    """⟨a, b⟩ over all parameters, summed in float64."""
    return float(sum(torch.dot(x.flatten().double(), y.flatten().double()) for x, y in zip(a, b, strict=True)))


def scale_gradients(parameters: Sequence[Tensor], factor: float) -> None:
    """Multiplies every ``.grad`` in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def all_finite(parameters: Sequence[Tensor]) -> bool:
    """Whether every ``.grad`` holds numbers alone."""
    return all(bool(torch.isfinite(p.grad).all()) for p in parameters if p.grad is not None)


def token_mean_gradient(step: Step, batches: Sequence[Batch]) -> tuple[Gradient, float]:
    """Gradient and value of the mean cross-entropy a response token, ``Σ NLL / Σ N``, over all micro-batches.

    The gradient of the sum is accumulated and divided once, so the split into micro-batches leaves no trace.
    """
    nll, tokens = 0.0, 0
    for batch in batches:
        likelihoods = step.likelihoods(batch)
        step.backward(likelihoods.nll.sum())
        nll += likelihoods.nll.detach().sum().item()
        tokens += int(likelihoods.tokens.sum())
    scale_gradients(step.parameters, 1 / tokens)
    return take_gradient(step.parameters), nll / tokens
