"""Checkpoints that resume exactly. One is complete once the method's own state is in it, which is written last."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from antibody.errors import TrainingError
from antibody.files import to_json, write_json, write_jsonl

STATE_FILE = "antibody_state.json"
# What an objective keeps in tensors, as "NAME.INDEX".
TENSORS_FILE = "antibody_tensors.safetensors"


def checkpoint_step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint. One that a crash cut short is passed over."""
    complete = [path.parent for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{STATE_FILE}")]
    return max(complete, key=checkpoint_step, default=None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The method's state in a checkpoint.

    Raises:
        TrainingError: The checkpoint is incomplete, or not one of ours.
    """
    if not (checkpoint / STATE_FILE).exists():
        raise TrainingError(
            f"{checkpoint} cannot be resumed exactly: it has no {STATE_FILE}.",
            hint="Resume from an earlier checkpoint; a crash cut this one short.",
            code="checkpoint_incomplete",
        )
    state: dict[str, Any] = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    if (checkpoint / TENSORS_FILE).exists():
        found = load_file(checkpoint / TENSORS_FILE)
        for key in sorted(found, key=lambda key: int(key.rpartition(".")[2])):
            state["objective"].setdefault(key.rpartition(".")[0], []).append(found[key])
    return state


def write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Writes the method's state, of which the file that makes the checkpoint complete comes last."""
    kept: dict[str, list[Tensor]] = {
        name: value for name, value in state["objective"].items() if isinstance(value, list)
    }
    numbers = {name: value for name, value in state["objective"].items() if name not in kept}
    if kept:
        tensors = {
            f"{name}.{index}": tensor.contiguous().cpu()
            for name, values in kept.items()
            for index, tensor in enumerate(values)
        }
        save_file(tensors, checkpoint / TENSORS_FILE)
    write_json(checkpoint / STATE_FILE, state | {"objective": numbers})


def refuse_other_order(checkpoint: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on by another method or on other rows than a checkpoint was written with.

    Raises:
        TrainingError: ``resume_differs``.
    """
    if "options" not in begun:
        raise TrainingError(
            f"{checkpoint} does not say by which options it was written.",
            hint="An earlier version wrote it. Begin again.",
            code="resume_differs",
        )
    begun, now = ({**order, **order["options"]} for order in (begun, now))
    for name in [name for name in begun | now if name != "options"]:
        if begun.get(name) != now.get(name):
            raise TrainingError(
                f"{checkpoint} was written with {name}={begun.get(name)}, and would be resumed with {now.get(name)}.",
                hint="Resume with what it was begun with; the processes may be others, if they divide a step.",
                code="resume_differs",
            )


class StateWriter(TrainerCallback):  # type: ignore[misc]
    """Adds the method's state to every checkpoint, after all else is there."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self.state = state

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Every process has its own files in a checkpoint.
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            write_state(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}", self.state())


class MetricsWriter(TrainerCallback):  # type: ignore[misc]
    """Keeps ``metrics.jsonl`` equal to the trainer's log, which a checkpoint restores."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Drops what was logged after the checkpoint, and a line that a crash cut short.
        if state.is_world_process_zero:
            write_jsonl(self.path, [entry for entry in state.log_history if "loss" in entry])

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and "loss" in (entry := state.log_history[-1]):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(entry) + "\n")
