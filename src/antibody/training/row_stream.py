"""Rows that accompany those of the loader, from a stream without a position of its own to lose."""

from collections.abc import Sequence
from typing import Any

import torch


class RowStream:
    """Rows without end, reshuffled at every pass. A batch depends on the seed and its offset alone: resumes are exact.

    Args:
        rows: The tokenised rows.
        seed: Of the shuffles.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], *, seed: int) -> None:
        self.rows = rows
        self.seed = seed

    def batch(self, offset: int, size: int) -> list[dict[str, Any]]:
        """The ``size`` rows from position ``offset`` of the endless stream."""
        return [self._row(position) for position in range(offset, offset + size)]

    def _row(self, position: int) -> dict[str, Any]:
        epoch, place = divmod(position, len(self.rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return self.rows[int(torch.randperm(len(self.rows), generator=generator)[place])]
