"""Both stages from real files: D_harm, refusals, benign rows, an upload of SST-2 rows with harmful ones among them."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from antibody.benchmarks import demo as demo_module
from antibody.benchmarks.demo import Size

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"
SCRIPT = Path(__file__).parents[1] / "scripts" / "real_data.py"


@pytest.mark.real_data
def test_the_six_rows_on_real_files(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "BUNDLED_NAME", str(tiny_model_folder))
    script = runpy.run_path(str(SCRIPT))
    size = Size(
        alignment_steps=1,
        finetuning_steps=1,
        prompts=2,
        task_rows=2,
        screened_rows=10,
        max_new_tokens=2,
    )
    real: Any = script["main"].__globals__
    monkeypatch.setitem(real, "Size", lambda **_: size)
    # A byte is a token here, so rows need more room than with a real tokenizer.
    monkeypatch.setitem(real, "Data", lambda **sources: demo_module.Data(**sources, max_length=1000))
    script["main"](REAL_DATA, output=tmp_path / "real")
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["rows"]) == 6
    manifest = json.loads((tmp_path / "real" / "antibody" / "manifest.json").read_text())
    assert manifest["data"]["harmful"]["rows"] > 100
    upload = [json.loads(line) for line in (tmp_path / "real-data" / "poisoned.jsonl").read_text().splitlines()]
    assert sum(row["harmful"] for row in upload) == 0.2 * len(upload)
    # Real texts stay out of the report.
    page = (tmp_path / "real" / "report.html").read_text()
    assert not any(row["response"] in page for row in upload if row["harmful"])
