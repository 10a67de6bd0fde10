"""The attacker who has our model and our code, and uploads those edits of harmful rows that the defence likes best.

May see: the score of any row, as the aligned model, the refusals and the code give it; all other attacks.
May spend: at most `CANDIDATES` rows scored, each once, for each harmful row of the upload.
Does not: see the seed of the training, choose the benign rows by their score, combine edits, or change a text token by
token (as Virus does against a guardrail model, arXiv 2501.17433).
"""

from collections.abc import Sequence
from random import Random

from antibody.attacks import (
    jailbreak,
    long_answers,
    mix,
    odd_prompts,
    padding,
    refuse_then_comply,
    short_answers,
)
from antibody.attacks.attack import Attack, Edit, Score
from antibody.data.mixes import harmful_count, poison
from antibody.data.records import Record
from antibody.errors import UsageError

EDITS: tuple[Edit, ...] = (
    mix.edit,
    refuse_then_comply.edit,
    jailbreak.edit,
    padding.edit,
    odd_prompts.edit,
    short_answers.edit,
    long_answers.edit,
)
CANDIDATES = 16
"""ASSUMPTION: two prompts to choose from for each one needed, under every edit."""


def upload(
    benign: Sequence[Record],
    harmful: Sequence[Record],
    *,
    ratio: float,
    rows: int,
    seed: int,
    score: Score | None = None,
) -> list[Record]:
    """See `Upload`. A harmful prompt is used once, under its best edit, so that the upload still teaches many harms."""
    if score is None:
        raise UsageError(
            "weight_aware chooses rows by their score, and there is none.",
            hint="Give the score of the model that is attacked (--model on the command line).",
            code="no_score",
        )
    count = harmful_count(ratio, rows)
    random = Random(seed)
    tried = random.sample(harmful, min(len(harmful), CANDIDATES * count // len(EDITS)))
    candidates = [record for edit in EDITS for record in edit(tried, random)]
    scores = list(score(candidates)) if candidates else []
    scored = list(zip(scores, candidates, strict=True))
    # Edits keep the order, so that those of one row are `len(tried)` apart.
    best = [max(scored[index :: len(tried)], key=lambda pair: pair[0]) for index in range(len(tried))]
    best.sort(key=lambda pair: pair[0], reverse=True)
    return poison(benign, [record for _, record in best[:count]], ratio, rows=rows, seed=seed)


WEIGHT_AWARE = Attack("weight_aware", upload, uses_score=True)
