import json
from pathlib import Path

import pytest
from rich.console import Console

from antibody.errors import DataError, UsageError
from antibody.reports import print_report, write_card, write_report
from antibody.reports.reading import Comparison, Run, read, read_run


def test_a_directory_that_is_no_run_is_refused_with_exit_code_2(tmp_path: Path) -> None:
    for call in (write_report, write_card, lambda path: print_report(path, Console())):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(UsageError) as caught:
                call(path)
            assert (caught.value.exit_code, caught.value.code) == (2, "not_a_run")


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_main_file_is_bad_data(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert caught.value.code == "bad_json"
    assert caught.value.path == str(tmp_path / name)


def test_half_a_line_of_an_interrupted_run_is_counted_not_hidden(demo: Path) -> None:
    run = demo / "both-poisoned"
    whole = len(read_run(run).metrics)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    content = read_run(run)
    assert len(content.metrics) == whole
    assert content.problems == ["metrics.jsonl has 1 unreadable line."]


def test_the_base_model_is_found_though_it_has_no_run(demo: Path) -> None:
    content = read(demo)
    assert isinstance(content, Comparison)
    base = content.find(alignment="none", finetuning="none", poisoned=False)
    assert base is not None and base.run is not None
    assert base.run.manifest == {} and "harmful" in base.run.evaluations


def test_a_missing_run_directory_is_reported(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text())
    summary["rows"][4]["run"] = "gone"
    (demo / "summary.json").write_text(json.dumps(summary))
    content = read(demo)
    assert content.problems == ["The run directory gone is missing."]


def test_a_run_is_embedded_only_if_its_parent_is(demo: Path) -> None:
    assert read_run(demo / "both-poisoned").embedded
    manifest = demo / "antibody-aligned/manifest.json"
    content = json.loads(manifest.read_text())
    content["data"]["harmful"]["path"] = "/data/harmful.jsonl"
    manifest.write_text(json.dumps(content))
    assert not read_run(demo / "both-poisoned").embedded


def test_anchors_of_an_embedded_parent_are_embedded(demo: Path) -> None:
    assert read_run(demo / "gated").embedded
    manifest = demo / "gated/manifest.json"
    content = json.loads(manifest.read_text())
    others = (
        {"anchors": {"path": "/data/anchors.jsonl"}},
        {"anchors": {"path": "runs/demo/antibody-aligned/other.jsonl"}},
        {"upload": {"path": "runs/demo/antibody-aligned/anchors.jsonl"}},
    )
    for other in others:
        manifest.write_text(json.dumps(content | {"data": content["data"] | other}))
        assert not read_run(demo / "gated").embedded
    manifest.write_text(json.dumps(content))
    parent = demo / "antibody-aligned/manifest.json"
    data = {"harmful": {"path": "/data/harmful.jsonl"}}
    parent.write_text(json.dumps(json.loads(parent.read_text()) | {"data": data}))
    assert not read_run(demo / "gated").embedded


@pytest.mark.parametrize(
    ("kind", "method", "settings", "gate"),
    [
        ("finetuning", "antibody", {"gate": "mask"}, "mask"),
        ("finetuning", "antibody", {"gate": None}, "anchor"),
        ("finetuning", "antibody", {"gate": "off"}, "off"),
        ("finetuning", "antibody", {}, "off"),
        ("finetuning", "sft", {"gate": None}, "off"),
        ("finetuning", "lisa", {"gate": None}, "off"),
        ("alignment", "antibody", {}, "off"),
    ],
)
def test_the_gate_of_a_run(kind: str, method: str, settings: dict[str, str | None], gate: str) -> None:
    manifest = {"kind": kind, "method": method, "settings": settings}
    assert Run(path=Path("run"), manifest=manifest).gate == gate


def test_a_run_whose_parent_is_gone_or_itself_is_not_embedded(demo: Path) -> None:
    run = demo / "both-poisoned"
    manifest = json.loads((run / "manifest.json").read_text())
    for parent in ("/nowhere/aligned", str(run)):
        (run / "manifest.json").write_text(json.dumps(manifest | {"parent": parent}))
        content = read(run)
        assert isinstance(content, Run) and not content.embedded
