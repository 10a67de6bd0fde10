"""What `antibody speed` may be told. These are the options of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from antibody.errors import UsageError
from antibody.names import BUNDLED_NAME, Dtype
from antibody.training.settings import refuse_not_positive

Rows = Literal["short", "medium", "long"]

POSITIVE = ("batch_size", "micro_batch_size", "rounds", "steps", "lora_r", "max_length")


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """Options of the side-by-side timings.

    Attributes:
        model: smollm2-135m, a Hub id, a local folder, or the directory of a run.
        output: Directory for speed.json and speed.md.
        rows: Kinds of rows: short, medium, long; default all three, or short when quick.
        quick: Small batches and few rounds: the command works, but says less.
        scaling: Also measure how Antibody's cost grows with batch, length and trainable parameters.
        end_to_end: Also time `antibody finetune` against a TRL script as whole processes.
        steps: Steps of each whole process.
        memory: Measure each contender's peak memory in a process of its own.
        batch_size: Rows of a step; default 16, or 2 when quick.
        micro_batch_size: Rows in one of Antibody's forward passes; default the whole batch.
        rounds: Timed steps of each contender after the one that warms up; default 5, or at most 3 when quick.
        lora_r: Rank of the adapter; default from the model's preset.
        gradient_checkpointing: For every contender. TRL's own default is on; `antibody finetune`'s is off.
        max_length: Most tokens of prompt and response.
        seed: Of the adapter's start and the draw of rows.
        dtype: auto (bfloat16 where the hardware has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
        trust_remote_code: Run Python code that the model ships.
    """

    model: str = BUNDLED_NAME
    output: Path | None = None
    rows: tuple[Rows, ...] | None = None
    quick: bool = False
    scaling: bool = False
    end_to_end: bool = False
    steps: int = 100
    memory: bool = True
    batch_size: int | None = None
    micro_batch_size: int | None = None
    rounds: int | None = None
    lora_r: int | None = None
    gradient_checkpointing: bool = False
    max_length: int = 512
    seed: int = 0
    dtype: Dtype = "auto"
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        refuse_not_positive(self, POSITIVE)
        if self.batch_size == 1:
            raise UsageError(
                "A row alone in its batch has nothing to be weighed against.",
                hint="Use batch_size 2 or more.",
                code="one_row_batch",
            )
