"""Which rows make up a batch, and which of them are this process's."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import BatchSampler, Sampler

Row = TypeVar("Row")


def share_of(rows: Sequence[Row], process: int, processes: int) -> list[Row]:
    """Every n-th row: the shares differ by one row at most, and together are all rows once."""
    return list(rows[process::processes])


class SharedBatches(Sampler[list[int]]):
    """This process's share of every batch. An order and a batch size give the same batches to any number of processes.

    A batch with fewer rows than processes leaves some of them with none.

    Args:
        sampler: The order of the rows, the same in every process.
        size: Rows of a batch, over all processes.
        drop_last: Leave out an uneven last batch.
        process: This one's index.
        processes: How many there are.
    """

    def __init__(self, sampler: Any, size: int, *, drop_last: bool, process: int, processes: int) -> None:
        # Under this name `accelerate` finds the sampler whose epoch it sets.
        self.sampler = sampler
        self.batches = BatchSampler(sampler, size, drop_last)
        self.process = process
        self.processes = processes

    def __iter__(self) -> Iterator[list[int]]:
        return (share_of(batch, self.process, self.processes) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
