"""Training's progress bar."""

from typing import Any

from transformers import TrainerCallback

from antibody.progress import new_progress


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, the time that remains and the loss."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.progress = new_progress()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.start()
        self.task = self.progress.add_task(
            self.description, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.progress.update(self.task, note=f"loss {logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def stop(self) -> None:
        """Gives the terminal back, also after an error."""
        self.progress.stop()
