"""What a provider adds to an upload, for methods that change it before training."""

from collections.abc import Sequence
from typing import NamedTuple

from antibody.data.records import Record


class Provided(NamedTuple):
    """A provider's part.

    Attributes:
        anchors: Rows of the alignment data.
        refusals: What harmful prompts were answered by in alignment.
        seed: Of what is drawn.
    """

    anchors: Sequence[Record]
    refusals: Sequence[str]
    seed: int
