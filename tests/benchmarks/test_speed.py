"""The command on a tiny model: the form of what it finds. No durations."""

import json
from pathlib import Path
from typing import Any

import pytest

from antibody.benchmarks.speed import run as module
from antibody.benchmarks.speed.contenders import CONTENDERS, STAGES
from antibody.benchmarks.speed.end_to_end import end_to_end
from antibody.benchmarks.speed.run import Size, speed
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.cli import run
from antibody.errors import UsageError

TINY = Size(batch_size=2, rounds=1, kinds=("short",))


def settings(model: Path, **options: Any) -> SpeedSettings:
    return SpeedSettings(**{"model": str(model), "dtype": "float32", "device": "cpu", "max_length": 700} | options)


def test_every_contender_of_both_stages(tiny_model_folder: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.setattr(module, "QUICK", TINY)
    options = ["--model", str(tiny_model_folder), "--output", str(tmp_path), "--max-length", "700", "--no-memory"]
    assert run(["speed", "--quick", "--json", *options]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["device"] == "cpu"
    assert result["dtype"] in {"float32", "bfloat16"}
    found = [(case["stage"], case["rows"], case["contender"]) for case in result["cases"]]
    assert found == [(stage, "short", contender) for stage in STAGES for contender in CONTENDERS[stage]]
    for case in result["cases"]:
        assert case["seconds"] > 0
        assert case["tokens_per_second"] == pytest.approx(case["tokens_per_step"] / case["seconds"])
        assert case["peak_mb"] is None
        assert case[f"seconds_over_{case['contender']}"] == 1
        assert case["floor_seconds"] > 0
    by_name = {(case["stage"], case["contender"]): case["floor_flops"] for case in result["cases"]}
    for stage in STAGES:
        assert by_name[stage, "trl"] == by_name[stage, "hf_trainer"] < by_name[stage, "antibody"]
        assert by_name[stage, "textbook"] == by_name[stage, "antibody"]
    assert by_name["finetune", "antibody_gate"] > by_name["finetune", "antibody"]
    assert json.loads((tmp_path / "speed.json").read_text()) == result
    page = (tmp_path / "speed.md").read_text()
    assert page.count("| antibody |") == len(STAGES)
    assert "n/a" in page


def test_peak_memory_comes_from_processes_of_their_own(tiny_model_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "STAGES", ("align",))
    size = Size(batch_size=2, rounds=1, kinds=("short",))
    cases = speed(settings(tiny_model_folder), size)["cases"]
    for case in cases:
        # torch and its friends alone take over 100 MB.
        assert case["peak_mb"] >= case["loaded_mb"] > 100
    assert all(case["peak_over_trl"] == 1 for case in cases if case["contender"] == "trl")


def test_scaling_changes_one_thing_at_a_time(tiny_model_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "BATCH_SIZES", (2, 4))
    monkeypatch.setattr(module, "MICRO_BATCH_SIZE", 2)
    monkeypatch.setattr(module, "LENGTHS", ("words=5", "words=10"))
    monkeypatch.setattr(module, "RANKS", (2, 4))
    size = Size(batch_size=2, rounds=1, kinds=())
    scaling = speed(settings(tiny_model_folder, scaling=True, memory=False, max_length=900), size)["scaling"]
    assert [case["axis"] for case in scaling[::2]] == [
        f"{stage}: {axis}" for stage in STAGES for axis in ("batch", "batch in micro-batches", "length", "adapter")
    ]
    for smaller, larger in zip(scaling[::2], scaling[1::2], strict=True):
        name = smaller["axis"].split(": ")[1]
        grown = "trainable_parameters" if name == "adapter" else "tokens_per_step"
        assert larger[grown] > smaller[grown]


def test_whole_processes(tiny_model_folder: Path) -> None:
    steps: list[None] = []
    [found] = end_to_end(
        settings(tiny_model_folder, steps=2), ["short"], batch_size=4, advance=lambda: steps.append(None)
    )
    assert len(steps) == 2
    assert found["ratio"] == pytest.approx(found["antibody_seconds"] / found["trl_seconds"])


def test_what_cannot_be_measured_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(UsageError, match="rounds=0"):
        settings(tiny_model_folder, rounds=0)
    with pytest.raises(UsageError, match="nothing to be weighed against"):
        settings(tiny_model_folder, batch_size=1)
