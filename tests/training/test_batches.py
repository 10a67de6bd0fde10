"""Batches that any number of processes share."""

import pytest
from accelerate.data_loader import SeedableRandomSampler

from antibody.training.batches import SharedBatches


def shares(rows: int, processes: int, *, drop_last: bool = False) -> list[list[list[int]]]:
    """By process, its share of every batch of 8."""
    return [
        list(
            SharedBatches(
                SeedableRandomSampler(range(rows), data_seed=3), 8, drop_last=drop_last, process=i, processes=processes
            )
        )
        for i in range(processes)
    ]


@pytest.mark.parametrize("rows", [7, 16, 35, 41])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_shares_make_up_the_batches_of_one_process(rows: int, processes: int) -> None:
    [whole] = shares(rows, 1)
    together = shares(rows, processes)
    assert all(len(share) == len(whole) for share in together)
    for step, batch in enumerate(whole):
        parts = [share[step] for share in together]
        assert sorted(row for part in parts for row in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_may_get_no_row() -> None:
    """Of 41 rows the last batch has one."""
    assert [len(share[-1]) for share in shares(41, 2)] == [1, 0]
    assert all(len(share) == 5 for share in shares(41, 2, drop_last=True))


def test_order_changes_with_the_epoch_alone() -> None:
    sampler = SeedableRandomSampler(range(20), data_seed=3)
    batches = SharedBatches(sampler, 8, drop_last=False, process=0, processes=2)
    first, second = list(batches), list(batches)
    assert first != second
    sampler.set_epoch(0)
    assert list(batches) == first
    assert len(batches) == len(first) == 3
