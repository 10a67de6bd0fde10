"""What the processes of a stage find wrong, they find out together: none trains alone or waits for one that ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from accelerate import PartialState
from accelerate.utils import gather_object

from antibody.errors import AntibodyError, UsageError
from antibody.failures import machine_failures
from antibody.models.base import choose_device


@contextmanager
def agreed(device: str) -> Iterator[None]:
    """Does something in every process. What the first of them finds wrong, all raise when all are through with it.

    Nothing in it may wait for the other processes.

    Args:
        device: What will be trained on.

    Raises:
        AntibodyError: What a process raised. One that is not the first is named.
    """
    PartialState(cpu=choose_device(device).type == "cpu")
    wrong: AntibodyError | None = None
    try:
        with machine_failures():
            yield
    except AntibodyError as error:
        wrong = error
    for process, found in enumerate(gather_object([wrong])):
        if found is not None:
            found.by_all = True
            if process > 0:
                found.message = f"In process {process}: {found.message}"
            raise found


def refuse_differences(mine: Mapping[str, object]) -> None:
    """Refuses to train where a process would do so on other data or by other settings, as on a machine left behind.

    Args:
        mine: This process's settings and hashes of what it reads, by name.

    Raises:
        UsageError: ``inputs_differ``, in every process.
    """
    first, *others = gather_object([dict(mine)])
    for process, other in enumerate(others, start=1):
        names = sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name))
        if names:
            error = UsageError(
                f"Process {process} has other inputs than process 0: {', '.join(names)}.",
                hint="Give every machine the same files and options.",
                code="inputs_differ",
            )
            error.by_all = True
            raise error
