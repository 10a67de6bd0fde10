"""A comparison of two methods on the tiny model, in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def tiny(tiny_model_folder: Path) -> dict[str, Any]:
    """Two defences, two ratios, one seed: four cells, two alignments of one plain stage."""
    small = {"batch_size": 4, "steps": 1, "max_length": 400}
    return {
        "model": str(tiny_model_folder),
        "seeds": [0],
        "rows": {
            "harmful": {"from": "embedded:harmful_train", "first": 16},
            "benign": {"from": "embedded:benign", "first": 16},
            "refusals": {"from": "embedded:refusals", "first": 8},
            "attack": {"from": "embedded:harmful_attack", "first": 8},
            "test": {"from": "embedded:task_test", "first": 2},
            "prompts": {"from": "embedded:harmful_evaluation", "first": 2},
        },
        "align": small | {"refusals": "refusals", "harmful": "harmful", "benign": "benign"},
        "finetune": small,
        "alignments": {"plain": {"method": "sft", "seed": 0}},
        "methods": {
            "SFT": {"align": "plain", "finetune": {"method": "sft"}},
            "Antibody": {"align": ["plain", {"method": "antibody"}], "finetune": {"method": "antibody"}},
        },
        "upload": {"harmful": "attack", "rows": 8},
        "tasks": {"labels": {"upload": "embedded:task_train", "test": "test"}},
        "evaluate": {"prompts": "prompts", "max_new_tokens": 2, "batch_size": 4},
        "grids": {"ratios": {"ratios": [0, 0.5]}},
    }


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a configuration."""

    def write(content: dict[str, Any]) -> Path:
        path = tmp_path / "compare-this.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write
