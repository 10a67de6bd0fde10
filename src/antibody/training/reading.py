"""Rows through the model of a trainer, without gradients. The trainer's processes share them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from accelerate.utils import gather_object
from torch import Tensor

from antibody.data.records import Record
from antibody.data.tokenization import tokenize_records
from antibody.progress import counted
from antibody.screening.forms import read_with_copies
from antibody.screening.probe import States, batch_states
from antibody.screening.reading import Row, read_rows
from antibody.screening.screen import Made, make_screen
from antibody.training.batches import share_of
from antibody.training.objective_trainer import ObjectiveTrainer
from antibody.training.sharding import reshard, whole

Found = TypeVar("Found")

# Prompt and response that a screen is made on, at least: users' rows may be longer than those that aligned the model.
# Made on short rows alone it flagged 18% of long benign ones instead of 6% (docs/robustness-choices.md).
SCREENED_TOKENS = 512


def read_shared(
    trainer: ObjectiveTrainer,
    rows: Sequence[Row],
    read: Callable[[Any, dict[str, Tensor]], Sequence[Found]],
    description: str,
    batch_size: int = 16,
) -> list[Found]:
    """What is read of rows in a trainer's model as it is now, in order and in every process.

    Args:
        trainer: Its model, its processes and its callbacks, of which ``on_prediction_step`` comes after every batch.
        rows: The rows, at least one.
        read: As `read_rows` takes it.
        description: What the progress line says.
        batch_size: Rows that one process reads together.
    """
    count, index = trainer.processes.count, trainer.accelerator.process_index
    # As many for every process: a sharded model needs all of them at every pass.
    here = share_of([*rows, *[rows[-1]] * (-len(rows) % count)], index, count)
    shown = counted(description, len(here)) if index == 0 else nullcontext(lambda _: None)
    with shown as advance, trainer.compute_loss_context_manager():

        def told(done: int) -> None:
            advance(done)
            # A callback may end it by an error, which it must raise in every process.
            trainer.callback_handler.on_prediction_step(trainer.args, trainer.state, trainer.control)

        found = read_rows(
            whole(trainer.model_wrapped), here, read, pad_token_id=trainer.tokenizer.pad_token_id,
            batch_size=batch_size, progress=told,
        )  # fmt: skip
    reshard(trainer.model)
    gathered = gather_object([(place * count + index, each) for place, each in enumerate(found)])
    return [each for _, each in sorted(gathered, key=lambda entry: entry[0])][: len(rows)]


def shared_states(trainer: ObjectiveTrainer, rows: Sequence[Row], description: str) -> list[States]:
    """The hidden states of rows, see `read_shared`."""
    return read_shared(trainer, rows, batch_states, description)


def shared_screen(
    trainer: ObjectiveTrainer,
    harmful: Sequence[Record],
    benign: Sequence[Record],
    held_out_harmful: Sequence[Record],
    held_out_benign: Sequence[Record],
) -> Made:
    """A screen by a trainer's model as it is now, on the rows and copies of them: `antibody.screening.forms`."""
    most = max(trainer.args.max_length, SCREENED_TOKENS)

    def read(records: Sequence[Record]) -> list[States]:
        tokens = tokenize_records(records, trainer.tokenizer, most)
        return shared_states(trainer, [(each.prompt_ids, each.response_ids) for each in tokens], "Calibrating")

    given = (harmful, benign, held_out_harmful, held_out_benign)
    made = make_screen(*read_with_copies(given, trainer.args.seed, trainer.tokenizer, most, read))
    return made._replace(benign_scores=made.benign_scores[: len(benign)])
