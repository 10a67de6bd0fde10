"""SafeInstr (arXiv 2309.07875): safety rows are mixed into the user's data, which are then trained on plainly.

Safety rows are harmful prompts with refusals. Published (abstract): "just 3% safety examples (a few hundred
demonstrations)" make a model substantially safer, and too many make it refuse safe prompts. Here they are drawn from
the anchors, of which those that one of the refusals answers are safety rows.
"""

from collections.abc import Sequence
from random import Random

from antibody.data.mixes import draw_again, with_unique_ids
from antibody.data.records import Record
from antibody.errors import DataError
from antibody.training.provided import Provided


def with_safety_rows(upload: Sequence[Record], provided: Provided, *, safety_ratio: float = 0.03) -> list[Record]:
    """The upload with safety rows at random places, its own rows in their order.

    Args:
        upload: The user's rows.
        provided: Whose anchors and refusals the safety rows are found by.
        safety_ratio: Safety rows' share of all rows, 0 or more and less than 1; one row at least unless it is 0.

    Raises:
        DataError: ``too_few_rows``, where no anchor is a safety row.
    """
    if safety_ratio == 0:
        return list(upload)
    refusals = set(provided.refusals)
    safety = [record for record in provided.anchors if record.response in refusals]
    if not safety:
        raise DataError(
            "No anchor is answered by one of the refusals, so there are no safety rows to mix in.",
            hint="Start from an aligned run, or give --anchors and --refusals that belong together.",
            code="too_few_rows",
        )
    random = Random(provided.seed)
    count = max(1, round(len(upload) * safety_ratio / (1 - safety_ratio)))
    places = set(random.sample(range(len(upload) + count), count))
    own, added = iter(upload), iter(draw_again(safety, count, random))
    return with_unique_ids([next(added if place in places else own) for place in range(len(upload) + count)])
