"""`antibody compare`: what it prints, its exit codes, and a probe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from antibody.benchmarks.compare import estimate
from antibody.cli import run

Write = Callable[[dict[str, Any]], Path]


def test_a_probe_times_every_method_and_leaves_nothing(
    tiny: dict[str, Any],
    written: Write,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first by name has no screen.
    tiny["methods"]["Antibody"]["align"][1]["screen"] = False
    tiny["calibrate"] = {"harmful": "harmful", "benign": "benign", "refit": True}
    real = estimate.calibrate_copy
    calibrated = []

    def slow(*given: Any) -> None:
        real(*given)
        calibrated.append(given)
        # The clock that the probe reads has gone on.
        clock = estimate.time.perf_counter
        monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock() + 5000)

    monkeypatch.setattr(estimate, "calibrate_copy", slow)
    output = tmp_path / "out"
    assert run(["compare", str(written(tiny)), "--output", str(output), "--dry-run", "--probe", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["cells"] == {"all": 4, "done": 0}
    assert found["alignments"] == {"all": 2, "done": 0}
    assert found["calibrations"] == {"all": 2, "done": 0}
    assert len(calibrated) == 1
    assert 10000 < found["seconds"] < 20000
    assert found["peak_gb"] > 0
    assert "probe" in found["measured_by"]
    assert found["unknown"] == ""
    assert not output.exists()


def test_exit_codes(
    tiny: dict[str, Any],
    written: Write,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["compare", str(written(tiny)), "--output", str(tmp_path / "out"), "--json"]
    assert run([*command, "--probe"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "conflict"
    assert run(["compare", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "out"), "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "no_config"

    module = "antibody.benchmarks.compare.run._measure"
    monkeypatch.setattr(module, Mock(side_effect=KeyboardInterrupt))
    assert run(command) == 130
    # What there is has been reported, and the directory can be gone on with.
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {cell["status"] for cell in results["cells"]} == {"missing"}
    monkeypatch.setattr(module, Mock())
    capfd.readouterr()
    assert run(command) == 5
    assert json.loads(capfd.readouterr().out)["error"]["code"] == "cells_failed"
    assert run(["report", str(tmp_path / "out")]) == 0
    assert "0 of 4 cells are measured" in capfd.readouterr().out
