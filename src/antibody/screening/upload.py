"""Screening an upload without training on it, and how well that went where labels are known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from antibody.data.records import Record
from antibody.data.tokenization import tokenize_records
from antibody.models.run import load_model
from antibody.names import Dtype
from antibody.progress import counted
from antibody.screening.probe import States, read_states
from antibody.screening.screen import Screen, screen_of


class ScreenedRow(NamedTuple):
    """One row's judgement. Holds no text.

    Attributes:
        line: 1-based line of its source.
        id: Of its record.
        harmful: Its label, where known.
        score: q_i. Low is harmful.
        benign_probability: 1 − h_i, among the rows it was uploaded with.
        flagged: Whether the gate would withhold it.
    """

    line: int
    id: str
    harmful: bool | None
    score: float
    benign_probability: float
    flagged: bool


class OperatingPoint(NamedTuple):
    """How a screen did on labelled rows. Shares are percent, None where there is nothing to divide by.

    Attributes:
        harmful_rows: Rows labelled harmful.
        benign_rows: Rows labelled benign.
        flagged_harmful: Those of the harmful that were flagged.
        flagged_benign: Those of the benign that were flagged.
        precision: Harmful rows of all flagged ones.
        recall: Flagged rows of all harmful ones.
        false_flag_rate: Flagged rows of all benign ones.
    """

    harmful_rows: int
    benign_rows: int
    flagged_harmful: int
    flagged_benign: int
    precision: float | None
    recall: float | None
    false_flag_rate: float | None


def screen_upload(
    model: Any,
    tokenizer: Any,
    records: Sequence[Record],
    screen: Screen,
    *,
    threshold: float,
    max_length: int = 256,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[ScreenedRow]:
    """Judges every record, as fine-tuning does before its first step.

    Args:
        model: The aligned model that the screen was made for.
        tokenizer: The model's tokenizer.
        records: Rows of an upload.
        screen: That model's.
        threshold: Probability of being benign below which a row is flagged.
        max_length: Most tokens of prompt and response.
        batch_size: Rows read together.
        progress: Called after every batch with the number of rows read so far.

    Returns:
        One row a record, in order.

    Raises:
        DataError: A record leaves nothing to judge.
    """
    states = states_of(model, tokenizer, records, max_length=max_length, batch_size=batch_size, progress=progress)
    judged = screen.judge(states)
    return [
        ScreenedRow(record.line, record.id, record.harmful, score, probability, probability < threshold)
        for record, score, probability in zip(records, judged.scores, judged.benign_probabilities, strict=True)
    ]


def attacker_score(
    run: str | Path, *, max_length: int = 256, dtype: Dtype = "auto", device: str = "auto"
) -> Callable[[Sequence[Record]], list[float]]:
    """What an attacker with an aligned run and the code sees: the gate's score of every row.

    Args:
        run: The aligned run.
        max_length: Most tokens of prompt and response.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...

    Raises:
        UsageError, ModelError: The run has no screen, or its model cannot be loaded.
    """
    screen = screen_of(run)
    loaded = load_model(run, dtype=dtype, device=device)

    def score(records: Sequence[Record]) -> list[float]:
        with counted("Scoring", len(records)) as advance:
            states = states_of(loaded.model, loaded.tokenizer, records, max_length=max_length, progress=advance)
        return screen.judge(states).scores

    return score


def states_of(
    model: Any,
    tokenizer: Any,
    records: Sequence[Record],
    *,
    max_length: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[States]:
    """The hidden states of records, see `antibody.screening.probe.read_states`.

    Raises:
        DataError: A record leaves nothing to read.
    """
    tokens = tokenize_records(records, tokenizer, max_length)
    return read_states(
        model,
        [(each.prompt_ids, each.response_ids) for each in tokens],
        pad_token_id=tokenizer.pad_token_id,
        batch_size=batch_size,
        progress=progress,
    )


def operating_point(rows: Sequence[ScreenedRow]) -> OperatingPoint | None:
    """What the flags are worth; None where no row is labelled."""
    harmful = [row.flagged for row in rows if row.harmful is True]
    benign = [row.flagged for row in rows if row.harmful is False]
    if not harmful and not benign:
        return None
    flagged = sum(harmful) + sum(benign)
    return OperatingPoint(
        harmful_rows=len(harmful),
        benign_rows=len(benign),
        flagged_harmful=sum(harmful),
        flagged_benign=sum(benign),
        precision=100 * sum(harmful) / flagged if flagged else None,
        recall=100 * sum(harmful) / len(harmful) if harmful else None,
        false_flag_rate=100 * sum(benign) / len(benign) if benign else None,
    )
