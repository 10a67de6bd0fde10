"""Training's progress bar."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.progress import TaskID
from transformers import TrainerCallback

from antibody.background import meanwhile
from antibody.models.run import Run
from antibody.progress import new_progress

# Seconds between two looks at a run that others train.
LOOK_EVERY = 1.0


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, the time that remains and the loss."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.progress = new_progress()
        self.task: TaskID | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.progress.start()
        self.task = self.progress.add_task(
            self.description, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if self.task is not None and logs and "loss" in logs:
            self.progress.update(self.task, note=f"loss {logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, completed=state.global_step)

    def stop(self) -> None:
        """Gives the terminal back, also after an error."""
        self.progress.stop()


@contextmanager
def following(run: Run, description: str) -> Iterator[None]:
    """Meanwhile shows how far a run is that other processes train, by what it logs."""

    def follow(ended: threading.Event) -> None:
        with new_progress() as progress:
            task = progress.add_task(description, total=None, note="")
            while not ended.wait(LOOK_EVERY):
                # Before the first step there is no log, and a line may be half written.
                with suppress(FileNotFoundError, IndexError, ValueError):
                    last = json.loads((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
                    config = run.config()
                    steps = config["steps"] or round(last["step"] * config["epochs"] / last["epoch"])
                    loss = math.nan if last["loss"] is None else last["loss"]
                    progress.update(task, completed=last["step"], total=steps, note=f"loss {loss:.3f}")

    with meanwhile(follow):
        yield
