"""Algebra on gradients kept as one list of tensors, in the order of the parameters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from antibody.objectives.step import Batch, Step

Gradient = list[Tensor]

Piece = TypeVar("Piece")


def gathered(tensor: Tensor) -> Tensor:
    """Whole, from the processes that have its parts. All of them must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def take_gradient(parameters: Sequence[Tensor]) -> Gradient:
    """Moves the parameters' ``.grad`` out. A parameter that took no part has a gradient of zero."""
    gradient = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return gradient


def dot(a: Gradient, b: Gradient) -> float:
    """⟨a, b⟩ over all parameters, summed in float64. Sharded parameters' partial sums are added in one reduction."""
    first, *rest = [(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]
    total = sum(rest, start=first)
    return float(gathered(total))


def cosine(product: float, first_norm: float, second_norm: float) -> float:
    """Of two vectors by their product and norms; 0 where one of them is zero."""
    norms = first_norm * second_norm
    return product / norms if norms > 0 else 0.0


def scale_gradients(parameters: Sequence[Tensor], factor: float) -> None:
    """Multiplies every ``.grad`` in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all tensors hold numbers alone, as far as this process has them."""
    return all(bool(torch.isfinite(t.to_local() if isinstance(t, DTensor) else t).all()) for t in tensors)


def copies(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The parameters' values as they are now."""
    return [parameter.detach().clone() for parameter in parameters]


@contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Puts the parameters back where they were, bitwise, whatever happens inside."""
    saved = copies(parameters)
    try:
        yield
    finally:
        put(parameters, saved)


def put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Gives the parameters other values."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def token_mean_gradient(step: Step, batches: Sequence[Batch]) -> tuple[Gradient, float]:
    """Gradient and value of the mean cross-entropy a response token, ``Σ NLL / Σ N``, over all micro-batches.

    The gradient of the sum is accumulated, added over the processes and divided once, so that the split into
    micro-batches and processes leaves no trace.
    """
    return mean_gradient(step, batches, step.likelihoods)


def mean_gradient(
    step: Step, pieces: Sequence[Piece], rows_of: Callable[[Piece], tuple[Tensor, Tensor]]
) -> tuple[Gradient, float]:
    """As `token_mean_gradient`, of any mean: what each row adds to the sum, and how much it counts."""
    total = count = 0.0
    for piece in pieces:
        values, counts = rows_of(piece)
        step.backward(values.sum())
        total += values.detach().sum().item()
        count += counts.sum().item()
    total, count = step.processes.total(total, count)
    step.processes.sum_gradients(step.parameters)
    scale_gradients(step.parameters, 1 / count)
    return take_gradient(step.parameters), total / count


def set_gradients(parameters: Sequence[Tensor], gradient: Gradient) -> None:
    """Leaves the update direction where the optimiser reads it."""
    for parameter, component in zip(parameters, gradient, strict=True):
        parameter.grad = component
