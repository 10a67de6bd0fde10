"""Names that several parts of the program share, without importing what they name."""

from typing import Literal

BUNDLED_NAME = "smollm2-135m"
BUNDLED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

Rule = Literal["cosine", "kkt", "constant"]
Score = Literal["mean", "sum"]
Average = Literal["row", "token"]
Gate = Literal["off", "mask", "anchor"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# Probability of being benign below which a row is withheld: a harmful row that passes counts as four times as bad as a
# benign one that does not. Measured on development rows: docs/robustness-choices.md.
DEFAULT_THRESHOLD = 0.8
