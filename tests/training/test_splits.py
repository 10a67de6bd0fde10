"""Training by trajectory: one seed, the same parameters, however a batch of 16 is split."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from antibody import AlignmentSettings, FinetuningSettings, align, finetune

SPLITS = [
    {"gradient_accumulation_steps": 16},
    {"gradient_accumulation_steps": 2},
    {"gradient_accumulation_steps": 1},
    {"gradient_accumulation_steps": 1, "micro_batch_size": 3},
    {"gradient_accumulation_steps": 4, "micro_batch_size": 2, "gradient_checkpointing": True},
]


def adapter(run: Any) -> torch.Tensor:
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.fixture(scope="session")
def aligned(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("aligned") / "run"
    align(AlignmentSettings(model=str(tiny_model_folder), output=output, steps=2, batch_size=4, max_length=700))
    return output


@pytest.mark.parametrize("method", ["antibody", "sft"])
def test_alignment_does_not_depend_on_the_split(tiny_model_folder: Path, tmp_path: Path, method: Any) -> None:
    found = [
        adapter(
            align(
                AlignmentSettings(
                    model=str(tiny_model_folder), output=tmp_path / str(index), method=method, steps=3, batch_size=16,
                    max_length=700, dtype="float32", **split,
                )
            )
        )
        for index, split in enumerate(SPLITS)
    ]  # fmt: skip
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=0)
    assert not torch.equal(found[0], torch.zeros_like(found[0]))


@pytest.mark.parametrize("method", ["antibody", "sft"])
def test_finetuning_does_not_depend_on_the_split(aligned: Path, tmp_path: Path, method: Any) -> None:
    """40 rows in batches of 16: the last batch of an epoch is uneven."""
    upload = tmp_path / "upload.jsonl"
    upload.write_text(
        "".join(f'{{"prompt": "Question {i}?", "completion": "{"word " * (i % 7 + 1)}"}}\n' for i in range(40))
    )
    found = []
    for index, split in enumerate(SPLITS):
        settings = FinetuningSettings(
            model=str(aligned), output=tmp_path / str(index), data=str(upload), method=method, epochs=2, batch_size=16,
            learning_rate=1e-3, dtype="float32", **split,
        )  # fmt: skip
        run = finetune(settings)
        assert run.manifest()["steps"] == 6
        found.append(adapter(run))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=0)


def test_methods_differ(aligned: Path, tmp_path: Path) -> None:
    """The invariance above would also hold for a trainer that ignores its objective."""
    settings = {"model": str(aligned), "data": "embedded:upload@0.2", "steps": 2, "batch_size": 8, "max_length": 700}
    runs = [
        finetune(FinetuningSettings(output=tmp_path / method, method=method, learning_rate=1e-3, **settings))
        for method in ("antibody", "sft")
    ]
    assert not torch.allclose(adapter(runs[0]), adapter(runs[1]), atol=1e-5, rtol=0)
