"""Progress bars on standard error, so that standard output stays free for ``--json``."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def new_progress() -> Progress:
    """A bar with a description, a count, the time that remains and a note."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


@contextmanager
def counted(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Opens a bar and gives the function that moves it to a count."""
    with new_progress() as progress:
        task = progress.add_task(description, total=total, note="")
        yield lambda done: progress.update(task, completed=done)


def bar_line(done: int, total: int, left: float | None) -> str:
    """One line of progress over things that have bars of their own, in rich's markup.

    Args:
        done: How many are done.
        total: Of how many.
        left: Seconds that remain; None where that is not known.
    """
    filled = round(20 * done / total) if total else 20
    time_left = "" if left is None else f", {datetime.timedelta(seconds=round(left))} left"
    return f"[green]{'━' * filled}[/][dim]{'━' * (20 - filled)}[/] {done}/{total}{time_left}"
