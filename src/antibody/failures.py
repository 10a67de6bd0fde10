"""What the machine refuses, as errors that a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from antibody.errors import MachineError, UsageError


@contextmanager
def machine_failures() -> Iterator[None]:
    """Turns unusable paths, full disks and full memory into errors of ours.

    Raises:
        UsageError: A path cannot be used.
        MachineError: Reading, writing or allocating failed.
    """
    try:
        yield
    except (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"A path cannot be used: {error}.", hint="Choose another, or mend its permissions.", code="path_unusable"
        ) from error
    except (OSError, SafetensorError) as error:
        raise _io_failed(error) from error
    except RuntimeError as error:
        import torch  # noqa: PLC0415 - seconds, which a command that needs no torch should not take

        # How torch.save says that a disk is full.
        if "inline_container" in str(error):
            raise _io_failed(error) from error
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        raise MachineError(
            f"Out of memory: {error}", hint="Set batch_size or max_new_tokens lower.", code="out_of_memory"
        ) from error


def _io_failed(error: Exception) -> MachineError:
    return MachineError(
        f"Reading or writing failed: {error}.", hint="See that the disk is whole and has space.", code="io_failed"
    )
