"""Comparisons on a tiny model: what is shared, what a crash leaves, what a failure leaves, what a change reaches."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antibody.benchmarks.compare import alignment, answers, finetuning, run
from antibody.benchmarks.compare.alignment import TakenError
from antibody.benchmarks.compare.estimate import dry_run
from antibody.benchmarks.compare.folder import Folder
from antibody.benchmarks.compare.plan import Cell, Model
from antibody.benchmarks.compare.run import Opened, compare, open_comparison
from antibody.errors import TrainingError, UsageError
from antibody.evaluation.pairwise import PAIRWISE_JUDGES, Preference
from antibody.files import write_json
from antibody.training.antibody_weights import antibody_weights
from antibody.training.methods import FINETUNINGS
from antibody.training.presets import PRESETS

Write = Callable[[dict[str, Any]], Path]
MEASURED = ("harmful_score", "refusal_rate", "unparsable_rate", "task_accuracy", "withheld_harmful", "withheld_benign")


def table(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells without times and memory."""
    keys = ("method", "ratio", "task", "seed", "status", *MEASURED)
    return [{key: cell.get(key) for key in keys} for cell in results["cells"]]


def test_what_is_equal_is_done_once_and_what_changes_is_done_again(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"align": 0, "finetune": 0, "generate": 0}
    for module, name in ((alignment, "align"), (finetuning, "finetune"), (answers, "generate")):
        monkeypatch.setattr(module, name, _counted(getattr(module, name), name, counts))
    tiny["calibrate"] = {"harmful": "harmful", "benign": "benign", "refit": True}
    output = tmp_path / "out"
    results = compare(written(tiny), output)
    assert [cell["status"] for cell in results["cells"]] == ["done"] * 4
    known = ("peak_gb", "device", "finetune_peak_gb", "finetune_device")
    assert all(cell[name] for cell in results["cells"] for name in known)
    assert results["cells"][3]["withheld_harmful_rows"] == 4
    # The plain stage is shared; every model answers prompts and task.
    assert counts == {"align": 2, "finetune": 4, "generate": 8}
    assert not list((output / "tuned").iterdir())
    for name in ("results.json", "cells.csv", "report.md", "report.html"):
        assert (output / name).stat().st_size > 100

    again = compare(written(tiny), output)
    assert counts == {"align": 2, "finetune": 4, "generate": 8}
    assert again == results

    # Another reader of the answers needs no model, another variant only its own.
    tiny["tasks"]["again"] = tiny["tasks"]["labels"] | {"task": "labels"}
    tiny["grids"]["faster"] = {
        "methods": ["SFT"], "ratios": [0.5], "tasks": ["labels"], "variants": {"5 x": {"learning_rate": 1e-3}}
    }  # fmt: skip
    planned = dry_run(open_comparison(written(tiny), output, None), probe=False)
    assert planned["finetunings"] == {"all": 5, "done": 4}
    # Cells by another task's name are read from the answers that are there.
    assert planned["cells"] == {"all": 5, "done": 4}
    assert planned["seconds"] > 0
    assert planned["measured_by"] == "the work that is done"
    more = compare(written(tiny), output)
    assert counts == {"align": 2, "finetune": 5, "generate": 10}
    assert len(more["cells"]) == 9
    assert dry_run(open_comparison(written(tiny), output, None), probe=False)["seconds"] == 0

    # A calibrated model that is lost is made again for a cell that needs it, and for none whose answers are kept.
    opened = open_comparison(written(tiny), output, None)
    stages = [stage for stage in opened.plan.stages.values() if stage.calibrates]
    for stage, seconds in zip(stages, (100.0, 300.0), strict=True):
        write_json(opened.folder.model(stage.key), {"seconds": seconds, "peak_gb": 99.0})
    lost = next(cell for cell in opened.plan.cells if cell.model.aligned[-1] == stages[0])
    opened.folder.cell(lost.key).unlink()
    assert dry_run(opened, probe=False)["seconds"] == 0
    shutil.rmtree(output / "answers")
    before = dry_run(opened, probe=False)["seconds"]
    shutil.rmtree(opened.folder.aligned(stages[0].key))
    planned = dry_run(opened, probe=False)
    assert planned["calibrations"] == {"all": 2, "done": 1}
    assert (planned["seconds"] - before, planned["peak_gb"]) == (pytest.approx(200.0), 99.0)


def test_published_results_are_gone_on_with(
    tiny: dict[str, Any],
    written: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    counts = {"align": 0, "finetune": 0}
    for module, name in ((alignment, "align"), (finetuning, "finetune")):
        monkeypatch.setattr(module, name, _counted(getattr(module, name), name, counts))
    published = compare(written(tiny), tmp_path / "theirs")
    ours = tmp_path / "ours"
    ours.mkdir()
    shutil.copy(tmp_path / "theirs/results.json", ours)
    planned = dry_run(open_comparison(written(tiny), ours, None), probe=False)
    assert (planned["cells"], planned["seconds"]) == ({"all": 4, "done": 4}, 0)
    before = dict(counts)
    assert compare(written(tiny), ours) == published
    assert counts == before
    assert "4 of 4 cells count" in capfd.readouterr().err
    assert json.loads((ours / "published.json").read_text()) == published

    # A method of one's own costs itself, and the alignment it starts from.
    tiny["methods"]["Lisa"] = {"align": "plain", "finetune": {"method": "lisa"}}
    more = compare(written(tiny), ours)
    assert more["cells"][:4] == published["cells"]
    assert [cell["status"] for cell in more["cells"]] == ["done"] * 6
    assert {name: counts[name] - before[name] for name in counts} == {"align": 1, "finetune": 2}
    # As if stopped where the file had its new name, and of other rows: nothing counts, and that is said.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "theirs/results.json", elsewhere / "published.json")
    tiny["rows"]["prompts"]["first"] = 1
    capfd.readouterr()
    compare(written(tiny), elsewhere)
    assert "0 of 6 cells count; other rows: prompts" in " ".join(capfd.readouterr().err.split())


KEYLESS = '{"kind": "comparison", "cells": [{"status": "done"}]}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no JSON", "holds something else"),
        ("[]", "holds something else"),
        ('{"kind": "evaluation", "cells": []}', "holds something else"),
        (KEYLESS, "No cell of the results"),
    ],
)
def test_another_results_file_is_left_alone(
    tiny: dict[str, Any], written: Write, tmp_path: Path, content: str, said: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "results.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        compare(written(tiny), other)
    assert [path.name for path in other.iterdir()] == ["results.json"]
    assert (other / "results.json").read_text() == content


def test_a_results_file_among_others_is_left_alone(tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "results.json").write_text('{"kind": "comparison", "cells": [{"status": "done", "key": "x"}]}')
    (other / "report.md").touch()
    with pytest.raises(UsageError, match="holds something else"):
        compare(written(tiny), other)


def test_a_default_counts_as_if_it_were_written(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> dict[tuple[str, float], str]:
        plan = open_comparison(written(tiny), tmp_path / "out", None).plan
        return {(cell.labels["method"], cell.labels["ratio"]): cell.key for cell in plan.cells}

    before = keys()
    tiny["methods"]["Antibody"]["finetune"] |= {"tau": 1.0, "options": {"score": "mean"}}
    tiny["finetune"] |= {"learning_rate": "1e-5", "preset": "paper"}
    tiny["align"] |= {"lora_alpha": PRESETS["paper"].lora.alpha}
    assert keys() == before
    # A newer version has another one.
    tiny["methods"]["Antibody"]["finetune"] = {"method": "antibody"}
    newer = replace(FINETUNINGS["antibody"], build=partial(antibody_weights, tau=2.0))
    monkeypatch.setitem(FINETUNINGS, "antibody", newer)
    after = keys()
    assert {name for name in before if after[name] != before[name]} == {("Antibody", 0.0), ("Antibody", 0.5)}


def test_sigkill_and_again_give_the_same_table(tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    tiny["methods"].pop("SFT")
    config, output = written(tiny), tmp_path / "killed"
    command = [sys.executable, "-m", "antibody", "compare", str(config), "--output", str(output)]
    begun = (lambda: any((output / "aligned").glob("*/metrics.jsonl")), lambda: any((output / "cells").glob("*.json")))
    for killed_once in begun:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        while not killed_once() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (output / "cells").glob("*.json")}
    assert kept
    # As if killed where a directory was made and nothing said yet what it is.
    opened = open_comparison(config, output, None)
    for model in opened.plan.models.values():
        Folder(output).tuned(model.key).mkdir(parents=True, exist_ok=True)
        (Folder(output).tuned(model.key) / "inputs.json").touch()
    results = compare(config, output)
    assert table(results) == table(compare(config, tmp_path / "straight"))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_failed_cell_is_a_hole_that_is_tried_again(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["methods"].pop("Antibody")
    output, real = tmp_path / "out", finetuning.finetune

    def failing(settings: Any) -> Any:
        if "upload" in settings.data and failing_keys and Path(settings.output).name == failing_keys[0]:
            raise TrainingError("It diverged.", hint="Train slower.", code="diverged")
        return real(settings)

    plan = open_comparison(written(tiny), output, None).plan
    failing_keys = [plan.cells[0].model.key]
    monkeypatch.setattr(finetuning, "finetune", failing)
    with pytest.raises(TrainingError, match=r"1 of 2 cells failed.*It diverged"):
        compare(written(tiny), output)
    results = json.loads((output / "results.json").read_text())
    assert [cell["status"] for cell in results["cells"]] == ["failed", "done"]
    assert results["cells"][0]["error"]["code"] == "diverged"
    assert "It diverged." in (output / "report.md").read_text()

    failing_keys.clear()
    assert [cell["status"] for cell in compare(written(tiny), output)["cells"]] == ["done", "done"]


class Undecided:
    """Prefers what stands first, and is now and then not to be read."""

    name = "undecided"

    def __init__(self, argument: str) -> None:
        self.unread = int(argument)

    def prefer(self, requests: Sequence[str], firsts: Sequence[str], seconds: Sequence[str]) -> list[Preference]:
        return [Preference.UNPARSABLE if index < self.unread else Preference.FIRST for index in range(len(requests))]


def test_a_win_rate_is_a_task(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PAIRWISE_JUDGES, "undecided", Undecided)
    tiny["methods"].pop("Antibody")
    tiny["grids"] = {"one": {"ratios": [0]}}
    tiny["tasks"] = {"chat": tiny["tasks"]["labels"] | {"task": "win_rate:undecided:0"}}
    output = tmp_path / "out"
    [cell] = compare(written(tiny), output)["cells"]
    assert (cell["task_accuracy"], cell["task_unjudged_rate"], cell["task_rows"]) == (50.0, 0.0, 2)
    answered = {path: path.stat().st_mtime_ns for path in (output / "answers").iterdir()}
    tiny["tasks"]["chat"]["task"] = "win_rate:undecided:1"
    [cell] = compare(written(tiny), output)["cells"]
    assert (cell["task_accuracy"], cell["task_unjudged_rate"], cell["task_rows"]) == (50.0, 50.0, 1)
    assert {path: path.stat().st_mtime_ns for path in (output / "answers").iterdir()} == answered
    assert "1 of 1 cells hardly readable" in (output / "report.md").read_text()


def test_what_another_process_is_at_is_left_to_it(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest comes first; what is let go of without a result is taken over."""
    seen: list[str] = []

    def measured(model: Model, cells: Sequence[Cell], opened: Opened, *_: Any, **__: Any) -> None:
        if model.origin in taken_at_once:
            raise TakenError
        seen.append(model.key)
        for cell in cells:
            write_json(opened.folder.cell(cell.key), {"error": {"message": "none"}})

    monkeypatch.setattr(run, "_measure", measured)
    monkeypatch.setattr(run, "PAUSE", 0.02)
    opened = open_comparison(written(tiny), tmp_path / "out", None)
    opened.folder.claim("")
    models = list(opened.plan.models.values())
    taken_at_once = {models[2].origin}
    assert [model.origin for model in models].count(models[2].origin) == 2
    with ThreadPoolExecutor() as pool, opened.folder.held(models[0].key):
        # Both alignments begin with that stage.
        with opened.folder.held(models[0].aligned[0].key):
            other = pool.submit(compare, written(tiny), tmp_path / "out")
            time.sleep(0.3)
            assert seen == []
        while len(seen) < 1 and not other.done():
            time.sleep(0.01)
        taken_at_once.clear()
        while len(seen) < 3 and not other.done():
            time.sleep(0.01)
        assert seen == [model.key for model in models[1:]]
        assert not other.done()
    with pytest.raises(TrainingError, match="4 of 4 cells failed"):
        other.result()
    assert seen[3:] == [models[0].key]


def test_a_failed_alignment_is_tried_once_by_all_that_need_it(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def failing(settings: Any) -> None:
        tried.append(settings.method)
        raise TrainingError("It diverged.", hint="Align slower.", code="diverged")

    monkeypatch.setattr(alignment, "align", failing)
    for times in (1, 2):
        with pytest.raises(TrainingError, match=r"4 of 4 cells failed.*It diverged"):
            compare(written(tiny), tmp_path / "out")
        assert tried == ["sft"] * times
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["error"]["code"] for cell in results["cells"]] == ["diverged", *["alignment_failed"] * 3]
    # What another process has just failed at is not tried by this one.
    opened = open_comparison(written(tiny), tmp_path / "out", None)
    monkeypatch.setattr(run, "open_comparison", lambda *_: opened)
    for stage in opened.plan.stages.values():
        write_json(opened.folder.stage_error(stage.key), {"error": {"message": "It failed there."}})
    with pytest.raises(TrainingError, match=r"4 of 4 cells failed.*It failed there"):
        compare(written(tiny), tmp_path / "out")
    assert tried == ["sft"] * 2


def test_processes_that_begin_at_once_do_not_take_each_other_for_strangers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            folder, together = Folder(tmp_path / str(number)), threading.Barrier(8)

            def claim(folder: Folder = folder, together: threading.Barrier = together) -> None:
                together.wait()
                folder.claim("model: tiny")

            for begun in [pool.submit(claim) for _ in range(8)]:
                begun.result()


def test_two_processes_make_one_table_and_nothing_twice(tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    tiny["calibrate"] = {"harmful": "harmful", "benign": "benign", "refit": True}
    config, output = written(tiny), tmp_path / "shared"
    command = [sys.executable, "-m", "antibody", "compare", str(config), "--output", str(output), "--json"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env=os.environ | {"HF_HUB_OFFLINE": "1"})
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (json.loads(out) for out, _ in said)
    assert first == second
    assert table(first) == table(compare(config, tmp_path / "alone"))
    # What a process begins it says in a line, and what it puts back; every fine-tuned model was made once.
    lines = [line for _, err in said for line in err.splitlines()]
    begun = [line for line in lines if "harmful" in line and "seed" in line]
    put_back = [line for line in lines if line.startswith("put back")]
    assert len(begun) - len(put_back) == 4


def test_a_directory_that_holds_something_else_is_left_alone(
    tiny: dict[str, Any], written: Write, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        compare(written(tiny), other)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


def _counted(function: Callable[..., Any], name: str, counts: dict[str, int]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        counts[name] += 1
        return function(*arguments, **keywords)

    return call
