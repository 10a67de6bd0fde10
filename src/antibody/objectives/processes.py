"""What the processes of one step tell each other.

An objective divides by sums over all rows of the step and decides by inner products of whole gradients. Each process
holds a part of the rows, and a part of every parameter where parameters are sharded (FSDP2). With the reductions here
a step means the same however many processes share it.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

# Elements reduced together: 64 MiB in bfloat16. ASSUMPTION: enough to hide the latency of a collective.
BUCKET_ELEMENTS = 2**25


class Processes:
    """The processes of torch's default group, or this one alone.

    Args:
        count: How many there are.
        device: Where the group's collectives take their tensors.
    """

    def __init__(self, count: int = 1, device: torch.device | None = None) -> None:
        self.count = count
        self.device = device

    def total(self, *values: float) -> list[float]:
        """The sum of each value over the processes, in float64."""
        return self._reduced(values, torch.distributed.ReduceOp.SUM)

    def largest(self, value: float) -> float:
        """The largest value that any process has."""
        return self._reduced([value], torch.distributed.ReduceOp.MAX)[0]

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return self.largest(float(value)) > 0

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replaces every ``.grad`` by its sum over the processes. That of a sharded parameter was summed in backward.

        Called once the processes have backpropagated all their rows.
        """
        if self.count == 1:
            return
        whole = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        for parameter in whole:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in whole if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            torch.distributed.all_reduce(flat)
            pieces = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def _reduced(self, values: Sequence[float], operation: torch.distributed.ReduceOp.RedOpType) -> list[float]:
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor, operation)
        reduced: list[float] = tensor.tolist()
        return reduced


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to `BUCKET_ELEMENTS` together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(other.numel() for other in bucket) + gradient.numel()
        if bucket and (gradient.dtype != bucket[0].dtype or size > BUCKET_ELEMENTS):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
