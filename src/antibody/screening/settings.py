"""What a user may choose for a calibration. These are the options of the command line."""

from dataclasses import dataclass

from antibody.names import Dtype


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """Options of a calibration.

    Attributes:
        model: The run.
        harmful: Harmful prompts with harmful responses that the run was not aligned with.
        benign: Helpful rows that it was not aligned with, of the kinds that users upload.
        refit: Make the probe anew as well, on four fifths of the rows, and calibrate it on the others.
        seed: Of the draw of rows.
        max_length: Most tokens of prompt and response.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
    """

    model: str
    harmful: str
    benign: str
    refit: bool = False
    seed: int = 0
    max_length: int = 256
    dtype: Dtype = "auto"
    device: str = "auto"
