"""The command line: exit codes, errors that say where and what to do, and bad input that never trains."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml
from datasets import Dataset

from antibody.cli import run
from antibody.errors import ModelError
from antibody.names import DEFAULT_THRESHOLD

GOOD = '{"prompt": "What is two plus two?", "completion": "Four."}\n'


class Outcome:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def content(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def antibody(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def aligned(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cli") / "aligned"
    options = ["--steps", "2", "--batch-size", "4", "--max-length", "700", "--json"]
    assert run(["align", "--model", str(tiny_model_folder), "--output", str(output), *options]) == 0
    return output


BAD_UPLOADS = {
    "empty_file": (b"", None),
    "bad_json": (GOOD.encode() + b'{"prompt": "a", "completion"\n', 2),
    "missing_field": (GOOD.encode() + b'{"messages": [{"role": "user"}]}\n', 2),
    "unknown_format": (b'{"question": "a", "answer": "b"}\n', 1),
    "not_a_string": (GOOD.encode() * 2 + b'{"prompt": "a", "completion": 4}\n', 3),
    "prompt_fills_context": (GOOD.encode() + json.dumps({"prompt": "x" * 300, "completion": "y"}).encode() + b"\n", 2),
    "response_truncated_to_nothing": (json.dumps({"prompt": "x" * 180, "completion": "  yes"}).encode() + b"\n", 1),
    "duplicate_id": (b'{"id": "a", "prompt": "a", "completion": "b"}\n' * 2, 2),
    "binary_file": (b"PAR1\x00\x01\x02", 1),
    "bad_utf8": (GOOD.encode() + b'{"prompt": "\xff", "completion": "b"}\n', 2),
}


@pytest.mark.parametrize("code", BAD_UPLOADS)
def test_bad_uploads_never_train(code: str, antibody: Any, aligned: Path, tmp_path: Path) -> None:
    content, line = BAD_UPLOADS[code]
    upload = tmp_path / "upload.jsonl"
    upload.write_bytes(content)
    output = tmp_path / "run"
    outcome = antibody("finetune", "--model", aligned, "--data", upload, "--output", output, "--max-length", 200,
                       "--steps", 1, "--json")  # fmt: skip
    assert outcome.code == 3
    error = outcome.content["error"]
    assert error["code"] == code
    assert error["line"] == line
    assert str(upload) in error["message"]
    assert error["hint"]
    assert error["hint"] in outcome.err
    assert not (output / "adapter").exists()
    assert not (output / "checkpoints").exists()


def test_a_missing_file_a_missing_model_and_wrong_use(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    common = ["--output", tmp_path / "run", "--json"]
    missing = antibody("finetune", "--model", aligned, "--data", tmp_path / "none.jsonl", *common)
    assert (missing.code, missing.content["error"]["code"]) == (3, "file_not_found")
    upload = tmp_path / "upload.jsonl"
    upload.write_text(GOOD)
    model = antibody("finetune", "--model", tmp_path / "nothing", "--data", upload, "--allow-unaligned", *common)
    assert (model.code, model.content["error"]["code"]) == (4, "model_not_loadable")
    assert antibody("finetune", "--model", aligned).code == 2
    assert antibody("finetune", "--no-such-option").code == 2
    assert antibody("align", "--output", tmp_path / "x", "--rule", "newton").code == 2
    assert antibody("nonsense").code == 2
    unaligned = antibody("finetune", "--model", tmp_path / "nothing", "--data", upload, *common)
    assert (unaligned.code, unaligned.content["error"]["code"]) == (2, "not_aligned")
    assert antibody("finetune", "--model", aligned, "--data", upload, "--batch-size", 0, *common).code == 2
    conflict = antibody("align", "--model", aligned, "--steps", 1, "--epochs", 1, *common)
    assert (conflict.code, conflict.content["error"]["code"]) == (2, "conflict")


def test_what_the_machine_refuses_is_no_traceback(
    antibody: Any, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        outcome = antibody("align", "--model", aligned, "--output", output, "--json")
        assert (outcome.code, outcome.content["error"]["code"]) == (2, "path_unusable")
        assert str(tmp_path / "file") in outcome.content["error"]["message"]

    failures = (
        ("out_of_memory", torch.OutOfMemoryError("CUDA out of memory.")),
        ("io_failed", OSError(errno.ENOSPC, "No space left on device")),
        ("io_failed", _torch_on_a_full_disk()),
    )
    for code, error in failures:
        monkeypatch.setattr("antibody.evaluation.generation.generate", Mock(side_effect=error))
        outcome = antibody("chat", "--model", aligned, "--prompt", "Hello!")
        assert outcome.code == 6
        assert code in outcome.err

    monkeypatch.setattr("antibody.evaluation.generation.generate", Mock(side_effect=RuntimeError("ours")))
    with pytest.raises(RuntimeError, match="ours"):
        antibody("chat", "--model", aligned, "--prompt", "Hello!")


def _torch_on_a_full_disk() -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        torch.save(torch.zeros(1000), "/dev/full")
    return raised.value


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-size", 4, "--gradient-accumulation-steps", 3],
        ["--batch-size", 4, "--micro-batch-size", 5],
        ["--lora-r", 4],
        ["--resume", "--force"],
        ["--tau", 0],
    ],
)
def test_options_are_checked_before_data_is_read(
    options: list[object], antibody: Any, aligned: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    outcome = antibody("finetune", "--model", aligned, "--data", tmp_path / "none.jsonl", "--output", output, *options)
    assert outcome.code == 2
    assert not output.exists()


def test_a_device_that_training_would_not_use_is_refused(
    antibody: Any, aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["finetune", "--model", aligned, "--data", "none.jsonl", "--output", tmp_path / "run", "--json"]
    absent = antibody(*arguments, "--device", "tpu:7")
    assert (absent.code, absent.content["error"]["code"]) == (2, "device")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 2)
    second = antibody(*arguments, "--device", "cuda:1")
    assert (second.code, second.content["error"]["code"]) == (2, "device")
    assert "CUDA_VISIBLE_DEVICES=1" in second.content["error"]["hint"]


def test_a_diverging_run_has_its_own_exit_code(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.jsonl"
    upload.write_text(GOOD * 8)
    outcome = antibody("finetune", "--model", aligned, "--data", upload, "--output", tmp_path / "run", "--steps", 5,
                       "--learning-rate", 1e30, "--max-length", 200, "--json")  # fmt: skip
    assert (outcome.code, outcome.content["error"]["code"]) == (5, "diverged")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_whole_way_with_json(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    output = tmp_path / "finetuned"
    options = ["--steps", 2, "--batch-size", 4, "--max-length", 700, "--json"]
    trained = antibody("finetune", "--model", aligned, "--data", "embedded:upload@0.2", "--output", output, *options)
    assert trained.code == 0
    manifest = trained.content["manifest"]
    assert manifest["parent"] == str(aligned)
    assert manifest["lineage"][0]["kind"] == "alignment"
    assert manifest["settings"]["learning_rate"] == 1e-5
    audit = [json.loads(line) for line in (output / "audit.jsonl").read_text().splitlines()]
    assert len(audit) == 200
    assert sum(row["times_seen"] for row in audit) == 8
    assert "prompt" not in audit[0]

    evaluated = antibody("evaluate", "--model", output, "--task", "embedded:task_test", "--limit", 3, "--task-limit", 3,
                         "--max-new-tokens", 4, "--json")  # fmt: skip
    assert evaluated.code == 0
    assert evaluated.content["harmful"]["rows"] == 3
    assert evaluated.content["task"]["rows"] == 3
    assert evaluated.content["harmful"]["refusal_margin"] is not None
    for name in ("generations.jsonl", "verdicts.jsonl", "metrics.json"):
        assert (output / "evaluation" / "harmful" / name).exists()
    assert "not been evaluated" not in (output / "README.md").read_text()

    again = ["evaluate", "--model", output, "--limit", 2, "--max-new-tokens", 4, "--json"]
    kept = (output / "evaluation" / "harmful" / "metrics.json").read_bytes()
    refused = antibody(*again)
    assert (refused.code, refused.content["error"]["code"]) == (2, "file_exists")
    assert (output / "evaluation" / "harmful" / "metrics.json").read_bytes() == kept
    assert antibody(*again, "--name", "two").content["two"]["rows"] == 2
    task = ["evaluate", "--model", output, "--prompts", "none", "--task", "embedded:task_test", "--json"]
    error = antibody(*task).content["error"]
    assert (error["code"], "--name" in error["hint"]) == ("file_exists", False)
    assert antibody(*task, "--limit", 2).content["error"]["code"] == "conflict"
    assert antibody(*again, "--safe").content["error"]["code"] == "conflict"
    for name in ("task", "../elsewhere", ""):
        assert antibody(*again, "--name", name).content["error"]["code"] == "out_of_range"
    safe = antibody(*again, "--safe", "--prompts", "embedded:looks_unsafe").content["safe"]
    assert (safe["kind"], safe["harmful_score"], safe["refusal_rate"]) == ("safe", None, None)
    assert 0 <= safe["over_refusal_interval"][0] <= safe["over_refusal"] <= safe["over_refusal_interval"][1]
    assert "over-refusal (OR)" in (output / "README.md").read_text()
    assert antibody(*again, "--force").content["harmful"]["rows"] == 2

    assert antibody("report", output, "--json").code == 0
    assert (output / "report.html").exists()
    shown = antibody("report", output)
    assert shown.code == 0
    assert "antibody" in shown.out


def test_screen_writes_all_scores(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.jsonl"
    rows = [{"prompt": f"Question {i}?", "completion": "Yes." * (i + 1), "is_safe": i % 2 == 0} for i in range(6)]
    upload.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = antibody("screen", "--model", aligned, "--data", upload, "--output", tmp_path / "scores.jsonl",
                       "--batch-size", 2, "--dtype", "float32", "--json")  # fmt: skip
    assert outcome.code == 0
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["line"] for row in scores] == [1, 2, 3, 4, 5, 6]
    assert [row["harmful"] for row in scores] == [False, True] * 3
    assert all(row["flagged"] == (row["benign_probability"] < DEFAULT_THRESHOLD) for row in scores)
    assert (outcome.content["rows"], outcome.content["flagged"]) == (6, sum(row["flagged"] for row in scores))
    labelled = outcome.content["labelled"]
    assert (labelled["harmful_rows"], labelled["benign_rows"]) == (3, 3)
    assert labelled["flagged_harmful"] == sum(row["flagged"] for row in scores[1::2])
    assert outcome.content["lowest"] == sorted(scores, key=lambda row: row["score"])
    # A row's score does not depend on what it is batched with.
    alone = antibody("screen", "--model", aligned, "--data", upload, "--output", tmp_path / "one.jsonl",
                     "--batch-size", 1, "--dtype", "float32", "--json")  # fmt: skip
    assert alone.code == 0
    other = [json.loads(line)["score"] for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert other == pytest.approx([row["score"] for row in scores], abs=1e-4)


def test_what_screen_flags_is_what_finetuning_withholds(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.jsonl"
    rows = [{"prompt": f"Question {i}?", "completion": "Yes. " * (i % 3) + "#!?" * (i % 2) + "No."} for i in range(6)]
    upload.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--model", aligned, "--data", upload, "--max-length", 200, "--dtype", "float32"]
    first = antibody("screen", *common, "--json").content
    assert first["labelled"] is None
    # Between the third and the fourth.
    threshold = sum(row["benign_probability"] for row in first["lowest"][2:4]) / 2

    screened = antibody("screen", *common, "--threshold", threshold, "--show", 2)
    assert screened.code == 0
    assert "2 lowest of 6 rows" in screened.out
    assert "3 of 6 rows are flagged" in screened.out
    output = tmp_path / "run"
    options = ["--output", output, "--steps", 2, "--batch-size", 3, "--gate-threshold", threshold, "--json"]
    assert antibody("finetune", *common, *options).code == 0
    audit = [json.loads(line) for line in (output / "audit.jsonl").read_text().splitlines()]
    assert {row["line"] for row in audit if row["withheld"]} == {row["line"] for row in first["lowest"][:3]}
    scores = {row["line"]: row["score"] for row in first["lowest"]}
    assert [row["screening_score"] for row in audit] == pytest.approx([scores[row["line"]] for row in audit], abs=1e-4)


def test_anchors_are_not_read_where_no_gate_uses_them(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    """None of them is as short as the user's rows."""
    upload, anchors = tmp_path / "upload.jsonl", tmp_path / "anchors.jsonl"
    upload.write_text(GOOD * 4)
    anchors.write_text(json.dumps({"prompt": "?" * 60, "response": "Yes."}) + "\n")
    common = ["--model", aligned, "--data", upload, "--steps", 1, "--batch-size", 4, "--max-length", 60, "--json"]
    common += ["--anchors", anchors]
    anchored = antibody("finetune", *common, "--output", tmp_path / "anchor")
    assert (anchored.code, anchored.content["error"]["code"]) == (3, "prompt_fills_context")
    assert anchored.content["error"]["path"] == str(anchors)
    for gate in ("off", "mask"):
        assert antibody("finetune", *common, "--output", tmp_path / gate, "--gate", gate).code == 0
        assert not (tmp_path / gate / "anchors.jsonl").exists()


def test_calibrate_and_what_it_mends(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    model = tmp_path / "aligned"
    shutil.copytree(aligned, model)
    for kind, text in (("harmful", "#!? "), ("benign", "word ")):
        rows = [{"prompt": f"Question {i}?", "completion": text * (i % 3 + 1)} for i in range(12)]
        (tmp_path / kind).with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--harmful", tmp_path / "harmful.jsonl", "--benign", tmp_path / "benign.jsonl"]
    arguments = ["calibrate", "--model", model, *own]
    finetune = ["finetune", "--model", model, "--data", tmp_path / "benign.jsonl", "--steps", 1, "--batch-size", 2,
                "--output", tmp_path / "run", "--json"]  # fmt: skip
    before = json.loads((model / "manifest.json").read_text())

    (model / "screen.safetensors").unlink()
    for refused in (finetune, [*arguments, "--json"], ["screen", "--model", model, "--data", "embedded:task_test",
                                                       "--json"]):  # fmt: skip
        outcome = antibody(*refused)
        assert (outcome.code, outcome.content["error"]["code"]) == (4, "not_calibrated")
        assert "--refit" in outcome.content["error"]["hint"]
    assert not (tmp_path / "run").exists()

    refitted = antibody(*arguments, "--refit", "--json")
    assert refitted.code == 0
    fit = refitted.content["calibration"]
    assert refitted.content["run"] == str(model)
    # A fifth of the twelve prompts of each kind, and one of them again in another form.
    assert (fit["harmful_rows"], fit["benign_rows"], fit["auroc"]) == (3, 3, 1.0)
    after = json.loads((model / "manifest.json").read_text())
    assert after["calibration"] != before["calibration"]
    assert after["calibration"]["rows"]["harmful"] == str(tmp_path / "harmful.jsonl")
    assert after | {"calibration": None} == before | {"calibration": None}
    assert fit.items() <= after["calibration"].items()
    assert antibody(*finetune).code == 0

    probe = (model / "screen.safetensors").read_bytes()
    again = antibody(*arguments)
    assert again.code == 0
    assert "AUROC 1.000" in again.out
    assert "aligned: calibrated anew on 18 harmful and 18 benign rows" in " ".join(again.err.split())
    assert (model / "screen.safetensors").read_bytes() == probe
    assert json.loads((model / "manifest.json").read_text())["calibration"]["harmful_rows"] == 12 + 6


def test_chat_answers_one_prompt(antibody: Any, aligned: Path) -> None:
    outcome = antibody("chat", "--model", aligned, "--prompt", "Hello!", "--max-new-tokens", 4)
    assert outcome.code == 0
    assert outcome.out.strip()


def test_an_existing_run_is_never_overwritten_silently(antibody: Any, aligned: Path, tiny_model_folder: Path) -> None:
    again = [
        "align",
        "--model",
        tiny_model_folder,
        "--output",
        aligned,
        "--batch-size",
        4,
        "--max-length",
        700,
        "--json",
    ]
    before = (aligned / "adapter" / "adapter_model.safetensors").read_bytes()
    refused = antibody(*again, "--steps", 2)
    assert (refused.code, refused.content["error"]["code"]) == (2, "run_exists")
    other = antibody(*again, "--steps", 3, "--resume")
    assert (other.code, other.content["error"]["code"]) == (2, "resume_settings_differ")
    assert "steps" in other.content["error"]["message"]
    # What cannot change the result may differ.
    assert antibody(*again, "--steps", 2, "--save-steps", 3, "--resume").code == 0
    assert antibody(*again, "--steps", 2, "--resume").code == 0
    assert (aligned / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_force_replaces_runs_and_nothing_else(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    outcome = antibody("finetune", "--model", aligned, "--data", "embedded:upload@0", "--output", tmp_path, "--force",
                       "--json")  # fmt: skip
    assert outcome.code == 2
    assert (tmp_path / "precious.txt").exists()


def test_a_run_is_not_replaced_by_what_is_trained_on_it(antibody: Any, aligned: Path) -> None:
    before = (aligned / "manifest.json").read_bytes()
    outcome = antibody("finetune", "--model", aligned, "--data", "embedded:upload@0", "--output", aligned, "--force",
                       "--json")  # fmt: skip
    assert (outcome.code, outcome.content["error"]["code"]) == (2, "conflict")
    assert (aligned / "manifest.json").read_bytes() == before


def test_an_upload_that_changed_is_not_resumed(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.jsonl"
    upload.write_text(GOOD * 8)
    options = ["--model", aligned, "--data", upload, "--output", tmp_path / "run", "--steps", 1, "--json"]
    assert antibody("finetune", *options).code == 0
    upload.write_text(GOOD * 9)
    outcome = antibody("finetune", *options, "--resume")
    assert (outcome.code, outcome.content["error"]["code"]) == (2, "resume_inputs_differ")
    assert "upload" in outcome.content["error"]["message"]


def test_a_row_alone_in_its_batch_is_refused_without_a_gate(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.jsonl"
    upload.write_text(GOOD * 9)
    common = ["--model", aligned, "--data", upload, "--epochs", 1, "--json"]
    assert antibody("finetune", *common, "--output", tmp_path / "gated", "--batch-size", 4).code == 0
    for size in (1, 4):
        outcome = antibody("finetune", *common, "--output", tmp_path / str(size), "--batch-size", size, "--gate", "off")
        assert (outcome.code, outcome.content["error"]["code"]) == (2, "one_row_batch")
    assert antibody("finetune", *common, "--output", tmp_path / "sft", "--batch-size", 4, "--method", "sft").code == 0


def test_a_changed_adapter_is_not_used(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(aligned, copy)
    with (copy / "adapter" / "adapter_model.safetensors").open("ab") as file:
        file.write(b"\0")
    outcome = antibody("screen", "--model", copy, "--data", "embedded:task_test", "--json")
    assert (outcome.code, outcome.content["error"]["code"]) == (4, "adapter_changed")


def test_config_file_with_the_same_names_and_options_over_it(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {"model": str(aligned), "data": "embedded:upload@0", "steps": 9, "batch_size": 2, "max_length": 700}
        )
    )
    outcome = antibody("finetune", "--config", config, "--output", tmp_path / "run", "--steps", 1, "--json")
    assert outcome.code == 0
    settings = outcome.content["manifest"]["settings"]
    assert (settings["steps"], settings["batch_size"]) == (1, 2)


BAD_CONFIGS = {
    "bad YAML": ("data: a\nmodel: [a\nsteps: 1\n", "line 3"),
    "not text": ("model: \0", "position 7"),
    "an object": ("data: a\nmodel: !!python/object:os.system a\n", "line 2"),
    "no mapping": ("- model\n", "does not map"),
    "a number as key": ("1: a\n", "does not map"),
    "unknown key": ("stepz: 1\n", "stepz"),
    "wrong type": ("steps: many\n", "steps"),
    "wrong name": ("preset: none\n", "preset"),
    "missing file": (None, "no file"),
}


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_a_bad_config_file_is_named_with_the_place_in_it(what: str, antibody: Any, tmp_path: Path) -> None:
    content, place = BAD_CONFIGS[what]
    config = tmp_path / "config.yaml"
    if content is not None:
        config.write_text(content)
    outcome = antibody("finetune", "--config", config, "--model", "m", "--data", "d", "--output", tmp_path / "run",
                       "--json")  # fmt: skip
    assert outcome.code == 2
    assert str(config) in outcome.content["error"]["message"]
    assert place in outcome.content["error"]["message"]


def test_the_run_s_own_config_repeats_it(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    outcome = antibody("align", "--config", aligned / "config.yaml", "--output", tmp_path / "again", "--json")
    assert outcome.code == 0
    file = Path("adapter/adapter_model.safetensors")
    assert (tmp_path / "again" / file).read_bytes() == (aligned / file).read_bytes()


def test_parquet_upload(antibody: Any, aligned: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.parquet"
    Dataset.from_list([{"instruction": f"Say {i}.", "input": "", "output": str(i)} for i in range(4)]).to_parquet(
        upload
    )
    outcome = antibody("finetune", "--model", aligned, "--data", upload, "--output", tmp_path / "run", "--steps", 1,
                       "--batch-size", 4, "--json")  # fmt: skip
    assert outcome.code == 0
    assert outcome.content["manifest"]["data"]["upload"]["rows"] == 4


def test_help_waits_for_no_library() -> None:
    code = "import sys, antibody.cli; sys.exit(bool({'torch', 'transformers', 'datasets'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_names_every_command(antibody: Any) -> None:
    outcome = antibody("--help")
    assert outcome.code == 0
    for command in (
        "align",
        "finetune",
        "evaluate",
        "screen",
        "calibrate",
        "attack",
        "judges",
        "chat",
        "report",
        "demo",
        "speed",
    ):
        assert command in outcome.out


@pytest.mark.parametrize("by_all", [True, False])
def test_a_process_speaks_of_what_it_alone_meets(
    by_all: bool, antibody: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ModelError("It is not there.", hint="Fetch it.", code="no_model")
    error.by_all = by_all
    monkeypatch.setattr("antibody.cli.PROCESS", 1)
    monkeypatch.setattr("antibody.data.sources.load_records", Mock(side_effect=error))
    outcome = antibody("attack", "mix", "--output", tmp_path / "upload.jsonl", "--json")
    assert (outcome.code, outcome.out) == (ModelError.exit_code, "")
    assert outcome.err == ("" if by_all else "error in process 1 (no_model): It is not there.\nFetch it.\n")


def test_no_file_is_overwritten_unless_asked(antibody: Any, tmp_path: Path) -> None:
    """Not even the upload that was read."""
    upload = tmp_path / "upload.jsonl"
    upload.write_text('{"prompt": "Is it good?", "completion": "yes"}\n')
    outcome = antibody("attack", "mix", "--benign", upload, "--output", upload, "--json")
    assert (outcome.code, "file_exists" in outcome.err) == (2, True)
    outcome = antibody("screen", "--model", tmp_path / "run", "--data", upload, "--output", upload, "--json")
    assert (outcome.code, "file_exists" in outcome.err) == (2, True)
    assert "Is it good?" in upload.read_text()
    assert antibody("attack", "mix", "--output", upload, "--force", "--json").code == 0
    assert "Is it good?" not in upload.read_text()


def test_an_interrupt_says_how_to_go_on(antibody: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antibody.data.sources.load_records", Mock(side_effect=KeyboardInterrupt))
    outcome = antibody("attack", "mix", "--output", tmp_path / "upload.jsonl")
    assert outcome.code == 130
    assert "--resume" in outcome.err


def test_a_baseline_of_each_stage_by_name(antibody: Any, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Options are given by name, and the config.yaml of a run repeats them."""
    common = ["--steps", 2, "--batch-size", 4, "--max-length", 700]
    vaccine = ["align", "--model", tiny_model_folder, "--method", "vaccine"]
    outcome = antibody(*vaccine, "--options.rho", 3, "--output", tmp_path / "aligned", *common, "--json")
    assert outcome.code == 0
    assert outcome.content["manifest"]["method"] == "vaccine"
    assert outcome.content["manifest"]["settings"]["rho"] == 3.0

    lisa = ["finetune", "--model", tmp_path / "aligned", "--data", "embedded:upload@0.2", "--method", "lisa"]
    outcome = antibody(*lisa, "--options.align-steps", 1, "--output", tmp_path / "user", *common, "--json")
    assert outcome.code == 0
    chosen = {"rho": 1.0, "align_steps": 1, "finetune_steps": 900}
    assert outcome.content["manifest"]["settings"]["options"] == chosen
    outcome = antibody(
        "finetune", "--config", tmp_path / "user" / "config.yaml", "--output", tmp_path / "user", "--resume"
    )
    assert outcome.code == 0

    outcome = antibody(*lisa, "--options.taste", 1, "--output", tmp_path / "no", *common, "--json")
    assert outcome.code == 2
    assert "taste" in outcome.content["error"]["message"]
    outcome = antibody(*lisa[:-1], "liza", "--output", tmp_path / "no", *common, "--json")
    assert outcome.code == 2
    assert "lisa" in outcome.content["error"]["hint"]
