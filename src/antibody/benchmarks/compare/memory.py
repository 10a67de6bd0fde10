"""The most memory that one piece of a comparison took, in a process that does many.

On CUDA the most that torch had allocated. On Linux the largest resident size of the whole process, libraries and model
included, since it was last forgotten: ``VmHWM``, which ``5`` written to ``clear_refs`` sets back (proc(5)). Elsewhere
the peak cannot be set back, so that nothing is said.
"""

import os
import re
from pathlib import Path

import torch

from antibody.models.base import choose_device

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def forget_peak() -> None:
    """`peak_gb` is of what follows."""
    device = choose_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _can_forget():
        CLEAR.write_text("5")


def peak_gb() -> float | None:
    """The most memory since `forget_peak`, 10^9 bytes; None where the system does not tell."""
    device = choose_device()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if not _can_forget():
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    # The kernel's kB are 1024 bytes.
    return None if found is None else int(found[1]) * 1024 / 1e9


def _can_forget() -> bool:
    return os.access(CLEAR, os.W_OK)
