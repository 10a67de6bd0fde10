"""A progress bar on standard error, so that standard output stays free for ``--json``."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, the time that remains and the loss."""

    def __init__(self, description: str) -> None:
        self.description = description

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress = progress_bar()
        self.progress.start()
        self.task = self.progress.add_task(
            self.description, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.progress.update(self.task, note=f"loss {logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.stop()
