"""A moderation filter: a frozen detector reads every row of an upload, and those it flags are not trained on.

    trained on  =  {(x_i, y_i) : judge(x_i, y_i) ≠ harmful}

What providers do today, before plain fine-tuning. The detector neither sees the model nor learns; it is a judge of
`antibody.evaluation.judges`, which reads the last request and the response. A row that a judge cannot read is kept: it
has flagged nothing. The embedded judge tells refusal from compliance and knows nothing about harm, so it also drops
benign rows with long answers on the topic of their prompts.
"""

from collections.abc import Sequence

from antibody.data.records import Record
from antibody.errors import DataError
from antibody.evaluation.judges import Verdict, make_judge
from antibody.training.provided import Provided


def moderated(upload: Sequence[Record], provided: Provided, *, judge: str = "embedded") -> list[Record]:
    """The rows of an upload that the judge does not call harmful.

    Args:
        upload: The user's rows.
        provided: Not read.
        judge: As `antibody.evaluation.judges.make_judge` takes it: ``embedded``, ``moderation:URL`` ...

    Raises:
        DataError: ``nothing_left``.
        UsageError, ModelError: There is no such judge, or it cannot be used.
    """
    verdicts = make_judge(judge).judge([record.request for record in upload], [record.response for record in upload])
    kept = [record for record, judged in zip(upload, verdicts, strict=True) if judged.verdict is not Verdict.HARMFUL]
    if not kept:
        raise DataError(
            f"The {judge} judge flags every one of the {len(upload)} rows, so nothing is left to train on.",
            hint="The model stays as it is; give other rows, or another judge.",
            code="nothing_left",
        )
    return kept
