"""What a user may choose for an evaluation. These are the options of the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from antibody.errors import UsageError
from antibody.names import Dtype

HARMFUL_PROMPTS = "embedded:harmful_evaluation"
TASK_NAME = "task"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Options of an evaluation.

    Attributes:
        model: smollm2-135m, a Hub id, a local folder or a run.
        prompts: Prompts to answer, harmful ones unless safe: a .jsonl or .parquet file with `prompt`, a part of the
            corpus, or none.
        safe: The prompts are safe. What counts is how many are refused, and there is no harmful score.
        task: A task to answer: a file of prompts and labels, a part of the corpus such as embedded:task_test, or the
            name of a task with --task-data; win_rate:chat:URL#MODEL has a model compare answers.
        task_data: The file of a named task.
        judge: Who reads the answers: embedded, trained:FOLDER, classifier:FOLDER_OR_HUB_ID, moderation:URL or
            judgezoo:NAME.
        name: Folder of the results on the prompts, evaluation/NAME; the task's is evaluation/task. Default: harmful, or
            safe.
        output: Where evaluation/ goes; default the run itself. Needed for a model that is not a run.
        max_new_tokens: Longest answer to a prompt. Published: 512; most verdicts stand in the first sentence.
        refusal_margin: Score the prompts' given answers against refusals as well, where the prompts have answers.
        max_length: Most tokens of a prompt with its given answer, for the refusal margin.
        batch_size: Prompts decoded together.
        limit: Answer a sample of this many prompts, always the same one. All by default.
        task_limit: Likewise for the task's rows.
        dtype: auto (bfloat16 where the hardware has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
        trust_remote_code: Run Python code that the model ships.
        force: Replace earlier results in evaluation/NAME and, with a task, in evaluation/task.
    """

    model: str
    prompts: str = HARMFUL_PROMPTS
    safe: bool = False
    task: str | None = None
    task_data: str | None = None
    judge: str = "embedded"
    name: str | None = None
    output: Path | None = None
    max_new_tokens: int = 64
    refusal_margin: bool = True
    max_length: int = 512
    batch_size: int = 32
    limit: int | None = None
    task_limit: int | None = None
    dtype: Dtype = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_length", "batch_size", "limit", "task_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value} is not positive.", hint="Use 1 or more.", code="out_of_range")
        if self.prompts == "none" and self.task is None:
            raise UsageError("There is nothing to measure.", hint="Give --prompts or --task.", code="conflict")
        if self.prompts == "none" and self.limit is not None:
            raise UsageError(
                "limit is of the prompts, and there are none.", hint="--task-limit is of the task.", code="conflict"
            )
        if self.safe and self.prompts == HARMFUL_PROMPTS:
            raise UsageError(
                f"{self.prompts} are harmful prompts, not safe ones.",
                hint="Give safe ones with --prompts: a file, or embedded:looks_unsafe.",
                code="conflict",
            )
        if self.name is not None and (self.name == TASK_NAME or not re.fullmatch(r"\w[\w.-]*", self.name)):
            raise UsageError(
                f"name={self.name} cannot be a folder of results.",
                hint=f"Use letters, digits, dots and dashes, and not {TASK_NAME!r}, which is the task's.",
                code="out_of_range",
            )

    @property
    def folders(self) -> dict[str, str]:
        """The folders of ``evaluation/`` that are written: that of the ``prompts`` and that of the ``task``."""
        prompts = {} if self.prompts == "none" else {"prompts": self.name or ("safe" if self.safe else "harmful")}
        return prompts if self.task is None else prompts | {"task": TASK_NAME}
