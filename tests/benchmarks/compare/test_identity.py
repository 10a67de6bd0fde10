"""A local model is known by what is in its folder, every other one by its name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antibody import AlignmentSettings, align
from antibody.benchmarks.compare.identity import model_identity
from antibody.benchmarks.compare.run import open_comparison

Write = Callable[[dict[str, Any]], Path]


def test_names_stand_for_themselves() -> None:
    for name in ("smollm2-135m", "meta-llama/Llama-2-7b-hf"):
        assert model_identity(name) == name


def test_a_folder_is_its_content(tiny: dict[str, Any], written: Write, tiny_model_folder: Path, tmp_path: Path) -> None:
    def keys(folder: Path) -> list[str]:
        tiny["model"] = str(folder)
        return [cell.key for cell in open_comparison(written(tiny), tmp_path / "out", None).plan.cells]

    moved = tmp_path / "moved"
    shutil.copytree(tiny_model_folder, moved)
    assert keys(moved) == keys(tiny_model_folder)
    (moved / "README.md").write_text("A card changes nothing.")
    assert keys(moved) == keys(tiny_model_folder)
    # Other weights of the same size, in the same place.
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not set(keys(moved)) & set(keys(tiny_model_folder))


def test_a_run_is_its_adapter_on_its_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"model": str(tiny_model_folder), "steps": 1, "batch_size": 4, "max_length": 400}
    runs = [
        align(AlignmentSettings(output=tmp_path / f"{method}-{seed}", method=method, seed=seed, **shared)).path
        for method, seed in (("sft", 0), ("sft", 1))
    ]
    shutil.copytree(runs[0], tmp_path / "copy")
    found = [model_identity(str(path)) for path in (*runs, tmp_path / "copy")]
    assert found[0] == found[2] != found[1]
    assert found[0] != model_identity(str(tiny_model_folder))


def test_another_judge_of_a_task_needs_no_other_model_or_answers(
    tiny: dict[str, Any], written: Write, tmp_path: Path
) -> None:
    plans = []
    for judge in ("chat:http://localhost:1#small", "chat:http://localhost:1#large"):
        tiny["tasks"]["labels"]["task"] = f"win_rate:{judge}"
        plans.append(open_comparison(written(tiny), tmp_path / "out", None).plan)
    assert list(plans[0].models) == list(plans[1].models)
    assert not {cell.key for cell in plans[0].cells} & {cell.key for cell in plans[1].cells}
