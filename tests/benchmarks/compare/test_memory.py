"""The peak of a piece is not that of the pieces before it."""

import pytest
import torch

from antibody.benchmarks.compare import memory
from antibody.benchmarks.compare.memory import forget_peak, peak_gb


@pytest.mark.skipif(not memory.CLEAR.exists() or torch.cuda.is_available(), reason="needs Linux's /proc, and no CUDA")
def test_a_peak_is_of_what_came_after_it_was_forgotten() -> None:
    """200 MB are taken, written and given back; the next piece takes 20."""
    forget_peak()
    before = peak_gb()
    assert before is not None
    large = bytearray(b"x" * 1000) * 200_000
    del large
    first = peak_gb()
    assert first is not None
    assert first == pytest.approx(before + 0.2, abs=0.05)
    forget_peak()
    small = bytearray(b"x" * 1000) * 20_000
    second = peak_gb()
    assert len(small) == 20_000_000
    assert second is not None
    assert second < first - 0.1


def test_where_it_cannot_be_forgotten_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(memory, "CLEAR", memory.CLEAR / "none")
    forget_peak()
    assert peak_gb() is None
