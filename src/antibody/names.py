"""Names that several parts of the program share, without importing what they name."""

BUNDLED_NAME = "smollm2-135m"
BUNDLED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
