"""What a script that trains by `AntibodyTrainer` takes from an aligned run."""

from pathlib import Path
from typing import Any

from datasets import Dataset

from antibody.data.sources import load_records, load_refusals
from antibody.errors import ModelError
from antibody.models.run import anchors_of, load_model, refusals_of
from antibody.names import Dtype
from antibody.screening.screen import screen_of


def aligned(
    run: str | Path, *, dtype: Dtype = "auto", device: str = "auto", trust_remote_code: bool = False
) -> dict[str, Any]:
    """An aligned run as arguments of `AntibodyTrainer`: model, processing_class, refusals, screen and anchors.

    Args:
        run: The directory, as `antibody align` made it. Its adapter goes on being trained: give no ``peft_config``.
        dtype: auto (bfloat16 where the hardware has it), float32, bfloat16 or float16.
        device: auto, cpu, cuda, mps ...
        trust_remote_code: Run Python code that the model ships.

    Raises:
        UsageError: It is no run of ours.
        ModelError: It is not complete or its model cannot be loaded; ``not_calibrated``, where it has no screen or no
            anchors.
    """
    screen, anchors = screen_of(run), anchors_of(run)
    if anchors is None:
        raise ModelError(f"{run} has no anchors.", hint="Make it again with `antibody align`.", code="not_calibrated")
    loaded = load_model(run, trainable=True, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    return {
        "model": loaded.model,
        "processing_class": loaded.tokenizer,
        "refusals": load_refusals(refusals_of(run)),
        "screen": screen,
        # As turns: a prompt that is a string would get no chat template.
        "anchors": Dataset.from_list(
            [
                {"prompt": list(record.prompt), "completion": [{"role": "assistant", "content": record.response}]}
                for record in load_records(anchors).records
            ]
        ),
    }
