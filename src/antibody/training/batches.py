"""Which rows make up a batch, and which of them are this process's."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import BatchSampler, Sampler

Row = TypeVar("Row")

# ASSUMPTION: half poison leaves as many full steps as a clean upload has, and nearly all poison few.
MOST_PASSES = 2


def share_of(rows: Sequence[Row], process: int, processes: int) -> list[Row]:
    """Every n-th row: the shares differ by one row at most, and together are all rows once."""
    return list(rows[process::processes])


class WithoutWithheld(Sampler[int]):
    """An order in which the rows that a gate keeps come again in place of those that it withholds.

    A withheld row would leave a hole in its batch. Kept rows come no more than `MOST_PASSES` times: where nearly all is
    withheld, what slipped through must not fill every batch. The places that are left over go to withheld rows, which
    the gate takes out of their batches.

    Args:
        sampler: The order of all rows.
        withheld: Says of a row's index whether it is withheld. Asked when the order is gone through, not before.
    """

    def __init__(self, sampler: Any, withheld: Callable[[int], bool]) -> None:
        self.sampler = sampler
        self.withheld = withheld

    def __iter__(self) -> Iterator[int]:
        rows = list(self.sampler)
        kept = [row for row in rows if not self.withheld(row)]
        withheld = [row for row in rows if self.withheld(row)]
        return iter([*kept * MOST_PASSES, *withheld][: len(rows)])

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """As `accelerate` tells the order that it finds under ``sampler``."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


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
