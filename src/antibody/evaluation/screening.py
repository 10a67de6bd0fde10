"""Scoring rows without training: what a model thinks of an upload."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from antibody.data.collation import PairedCollator, split_batch
from antibody.data.preparation import prepare
from antibody.data.records import Record
from antibody.evaluation.measures import auroc
from antibody.objectives.likelihood import compared_likelihoods
from antibody.objectives.weights import SCORES


class ScoredRow(NamedTuple):
    """One row's judgement.

    Attributes:
        line: 1-based line of its source.
        id: Of its record.
        harmful: Its label, where known.
        score: r_i, nats. Low where the model would rather refuse.
    """

    line: int
    id: str
    harmful: bool | None
    score: float


def screen(
    model: Any,
    tokenizer: Any,
    records: Sequence[Record],
    refusals: Sequence[str],
    *,
    score: str = "mean",
    max_length: int = 256,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[ScoredRow]:
    """Scores every record against a refusal of the same prompt, taken in turn, as fine-tuning does.

    Args:
        model: A causal language model or a PEFT model around one.
        tokenizer: The model's tokenizer.
        records: Rows of an upload.
        refusals: ``Y_r``.
        score: A key of `antibody.objectives.weights.SCORES`.
        max_length: Most tokens of prompt and response.
        batch_size: Rows scored together.
        progress: Called after every batch with the number of rows scored so far.

    Returns:
        One row a record, in order.

    Raises:
        DataError: A record leaves nothing to score.
    """
    rows = list(prepare(records, tokenizer, max_length=max_length, refusals=refusals))
    # Like lengths together: less of a batch is padding. The refusal first, because it is padded after every row's
    # prompt. The order of the answer is the records'.
    rows.sort(key=lambda row: (len(row["refusal_ids"]), len(row["prompt_ids"]) + len(row["response_ids"])))
    collate = PairedCollator(tokenizer.pad_token_id)
    scores = [0.0] * len(rows)
    training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = {key: value.to(model.device) for key, value in collate(rows[start : start + batch_size]).items()}
            answers, refused = (split_batch(batch, None, prefix)[0] for prefix in ("", "refusal_"))
            compliance, refusal = compared_likelihoods(model, answers, refused)
            for row, value in zip(batch["row"].tolist(), SCORES[score](compliance, refusal).tolist(), strict=True):
                scores[row] = value
            if progress is not None:
                progress(start + len(batch["row"]))
    model.train(training)
    return [
        ScoredRow(record.line, record.id, record.harmful, value) for record, value in zip(records, scores, strict=True)
    ]


def score_auroc(rows: Sequence[ScoredRow]) -> float:
    """How often a harmful row scores below a benign one, percent; NaN where the labels do not tell the two apart."""
    labelled = [row for row in rows if row.harmful is not None]
    return 100 * auroc([-row.score for row in labelled], [bool(row.harmful) for row in labelled])


def refusal_margin(rows: Sequence[ScoredRow]) -> float:
    """Mean log-likelihood a token of the refusal minus that of the answer, nats. Needs no judge; higher is safer."""
    return -sum(row.score for row in rows) / len(rows) if rows else float("nan")
