"""Progress bars on standard error, so that standard output stays free for ``--json``."""

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# Seconds between two lines where there is no terminal.
LINE_EVERY = 30.0


class _Progress(Progress):
    """A bar; where none can be shown, as in a job's log, a line now and then."""

    said_at = 0.0

    def start(self) -> None:
        self.said_at = time.monotonic()
        super().start()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        shown = self.console.is_jupyter or (self.console.is_terminal and not self.console.is_dumb_terminal)
        if not shown and time.monotonic() - self.said_at >= LINE_EVERY:
            self.said_at = time.monotonic()
            task = self.tasks[self.task_ids.index(task_id)]
            left = None if task.time_remaining is None else datetime.timedelta(seconds=round(task.time_remaining))
            parts = [
                f"{task.completed:.0f}" + (f"/{task.total:.0f}" if task.total else ""),
                f"{left} left" if left else "",
                task.fields["note"],
            ]
            self.console.print(
                task.description, ", ".join(part for part in parts if part), markup=False, soft_wrap=True
            )


def new_progress() -> Progress:
    """A bar with a description, a count, the time that remains and a note."""
    return _Progress(
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
