import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from antibody.reports import print_report

GOLDEN = Path(__file__).parent / "golden"


def printed(path: Path) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)
    print_report(path, console)
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("name", [".", "both-poisoned", "gated", "calibrated"])
def test_terminal(demo: Path, name: str) -> None:
    golden = GOLDEN / f"terminal-{'demo' if name == '.' else name}.txt"
    assert printed(demo / name) == golden.read_text(encoding="utf-8")


def test_nulls_are_not_zeros(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text())
    unmeasured = dict.fromkeys(
        ["harmful_score", "refusal_rate", "over_refusal", "task_accuracy", "score_auroc", "poison_ratio"]
    )
    summary["rows"] = [row | unmeasured for row in summary["rows"]]
    (demo / "summary.json").write_text(json.dumps(summary))
    text = printed(demo)
    assert text.count("n/a") >= 5 * len(summary["rows"])
    assert "0.0" not in text


def test_a_run_with_a_manifest_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    text = printed(tmp_path)
    assert "none yet" in text
    assert "metrics.jsonl is missing or empty" in text
    assert "no row weights in this run" in text


def test_markup_in_a_name_is_printed_as_it_is(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text())
    summary["rows"][0]["name"] = "[bold]Base"
    (demo / "summary.json").write_text(json.dumps(summary))
    assert "[bold]Base" in printed(demo)
