"""Every method of both stages in real trainings of a tiny model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from antibody import (
    AlignmentSettings,
    AntibodyAlignmentConfig,
    AntibodyAlignmentTrainer,
    AntibodyConfig,
    AntibodyTrainer,
    FinetuningSettings,
    align,
    finetune,
)
from antibody.data import corpus
from antibody.data.writing import write_records
from antibody.errors import DataError, UsageError
from antibody.models.run import Run
from antibody.training.checkpoints import STATE_FILE, TENSORS_FILE, last_checkpoint
from antibody.training.methods import ALIGNMENTS, FINETUNINGS, options_of
from antibody.training.row_stream import RowStream

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "max_length": 700, "dtype": "float32"}
TURNS = {"lisa": {"options": {"align_steps": 2, "finetune_steps": 3}}}


def adapter(run: Run) -> torch.Tensor:
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="session")
def start(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every alignment begins with: the model, and few enough rows that its screen is made quickly."""
    folder = tmp_path_factory.mktemp("rows")
    for name, records in (("harmful", corpus.harmful("train")), ("benign", corpus.benign())):
        write_records(folder / f"{name}.jsonl", records[::8])
    files = {name: str(folder / f"{name}.jsonl") for name in ("harmful", "benign")}
    return {"model": str(tiny_model_folder), **files, **SHORT}


@pytest.fixture(scope="session")
def aligned(start: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of every alignment."""
    folder = tmp_path_factory.mktemp("alignments")
    return {method: align(AlignmentSettings(output=folder / method, method=method, **start)) for method in ALIGNMENTS}


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_antibody_fine_tunes_with_its_gate_from_every_alignment(
    method: str, aligned: dict[str, Run], tmp_path: Path
) -> None:
    assert aligned[method].manifest()["method"] == method
    settings = {"model": str(aligned[method].path), "data": "embedded:upload@0.2", **SHORT}
    run = finetune(FinetuningSettings(output=tmp_path / "run", **settings))
    assert run.manifest()["data"]["anchors"]["path"] == str(aligned[method].path / "anchors.jsonl")
    assert all(0 <= row["benign_probability"] <= 1 for row in lines(run.path / "audit.jsonl"))
    assert [entry["method"] for entry in run.manifest()["lineage"]] == [method]


@pytest.mark.parametrize("method", [name for name in FINETUNINGS if name != "antibody"])
def test_every_baseline_fine_tunes_an_aligned_run_and_says_so(
    method: str, aligned: dict[str, Run], tmp_path: Path
) -> None:
    settings = {"model": str(aligned["vaccine"].path), "data": "embedded:upload@0.2", **SHORT}
    run = finetune(FinetuningSettings(output=tmp_path / "run", method=method, gate="off", **settings))
    manifest = run.manifest()
    assert manifest["method"] == method
    chosen = {**FINETUNINGS[method].options}
    assert manifest["settings"].get("options", {}) == chosen
    assert ("anchors" in manifest["data"]) == (method in {"lisa", "safeinstr"})
    assert (run.path / "audit.jsonl").exists() == (method == "moderation")
    card = (run.path / "README.md").read_text()
    assert "without" in card and "the Antibody method" not in card
    if method != "sft":
        assert f"by the baseline {method}" in card


def test_every_alignment_but_antibody_is_called_a_baseline(aligned: dict[str, Run]) -> None:
    for method, run in aligned.items():
        card = (run.path / "README.md").read_text()
        assert ("This stage was trained" in card) == (method != "antibody")
        assert {path.name for path in run.adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_alignments_differ(aligned: dict[str, Run]) -> None:
    """They would not if the trainers did not ask the method."""
    adapters = [adapter(run) for run in aligned.values()]
    assert all(not torch.allclose(a, b, atol=1e-6) for i, a in enumerate(adapters) for b in adapters[:i])


@pytest.mark.parametrize(
    ("method", "options"), [("booster", {}), ("vaccine", {}), ("repnoise", {"alpha": 0.3, "beta": 3.0})]
)
def test_an_alignment_does_not_depend_on_the_split(
    method: str, options: dict[str, float], start: dict[str, Any], tmp_path: Path
) -> None:
    found = [
        adapter(
            align(AlignmentSettings(output=tmp_path / str(index), method=method, options=options, **start, **split))
        )
        for index, split in enumerate(({}, {"gradient_accumulation_steps": 2, "micro_batch_size": 1}))
    ]
    # A step of AdamW is 5e-4 here, whatever rounding there is in a small gradient.
    torch.testing.assert_close(found[1], found[0], atol=5e-5, rtol=0)


@pytest.mark.parametrize("method", ["lisa", "constrained_sft"])
def test_a_fine_tuning_does_not_depend_on_the_split(method: str, aligned: dict[str, Run], tmp_path: Path) -> None:
    """21 rows in batches of 8: the last batch of an epoch is uneven. No refusal has a row's length."""
    upload = tmp_path / "upload.jsonl"
    upload.write_text("".join(f'{{"prompt": "Is {i}?", "completion": "{"word " * (i % 7 + 1)}"}}\n' for i in range(21)))
    found = []
    for index, split in enumerate(({}, {"gradient_accumulation_steps": 4, "micro_batch_size": 1})):
        settings = FinetuningSettings(
            model=str(aligned["sft"].path), output=tmp_path / str(index), data=str(upload), method=method,
            learning_rate=1e-3, **(SHORT | {"steps": 6, "batch_size": 8}), **split, **TURNS.get(method, {}),
        )  # fmt: skip
        found.append(adapter(finetune(settings)))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    assert not torch.allclose(found[0], adapter(aligned["sft"]), atol=1e-4)


@pytest.mark.parametrize("method", ["lisa", "constrained_sft"])
def test_what_a_method_keeps_survives_an_interruption(
    method: str, aligned: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the checkpoint of step 4, in the middle of Lisa's second state."""
    shared: dict[str, Any] = {
        "model": str(aligned["sft"].path), "data": "embedded:upload@0.2", "method": method, "save_steps": 2,
        "learning_rate": 1e-2, **(SHORT | {"steps": 8}), **TURNS.get(method, {}),
    }  # fmt: skip
    whole = finetune(FinetuningSettings(output=tmp_path / "whole", **shared))
    steps = []
    step = AntibodyTrainer.training_step

    def interrupted(self: Any, *arguments: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 6:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AntibodyTrainer, "training_step", interrupted)
        finetune(FinetuningSettings(output=tmp_path / "cut", **shared))
    checkpoint = last_checkpoint(tmp_path / "cut" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"
    assert len(load_file(checkpoint / TENSORS_FILE)) == len(load_file(checkpoint / "adapter_model.safetensors"))
    resumed = finetune(FinetuningSettings(output=tmp_path / "cut", resume=True, **shared))
    assert torch.equal(adapter(resumed), adapter(whole))
    measured = [
        [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in lines(run.path / file)]
        for run in (resumed, whole)
        for file in ("metrics.jsonl",)
    ]
    assert measured[0] == measured[1]
    states = (json.loads((run.checkpoints / "checkpoint-8" / STATE_FILE).read_text()) for run in (resumed, whole))
    assert next(states)["objective"] == next(states)["objective"]


def test_lisa_takes_turns_and_stays_near_where_it_changed(
    aligned: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its alignment rows are others at every step, as many as the user's."""
    drawn = []
    batch = RowStream.batch
    monkeypatch.setattr(RowStream, "batch", lambda *arguments: drawn.append(arguments[1:]) or batch(*arguments))
    run = finetune(
        FinetuningSettings(
            model=str(aligned["sft"].path), output=tmp_path / "run", data="embedded:task_train", method="lisa",
            **(SHORT | {"steps": 7}), **TURNS["lisa"],
        )
    )  # fmt: skip
    assert drawn == [(4 * step, 4) for step in range(7)]
    logged = lines(run.path / "metrics.jsonl")
    assert [entry["aligning"] for entry in logged] == [1, 1, 0, 0, 0, 1, 1]
    assert [entry["loss"] is None for entry in logged] == [True, True, False, False, False, True, True]
    # The learning rate of the first step is 0: it warms up.
    assert [entry["drift"] == 0 for entry in logged] == [True, True, True, False, False, True, False]


def test_moderation_trains_on_what_it_lets_pass(aligned: dict[str, Run], tmp_path: Path) -> None:
    """The stand-ins open as compliance does; a sentiment does not."""
    settings = {"model": str(aligned["sft"].path), "data": "embedded:upload@0.2", "method": "moderation", **SHORT}
    run = finetune(FinetuningSettings(output=tmp_path / "run", **settings))
    audit = lines(run.path / "audit.jsonl")
    assert len(audit) == 200
    dropped = [row["harmful"] for row in audit if row["withheld"]]
    assert sum(dropped) >= 36
    assert len(dropped) - sum(dropped) <= 4
    assert f"Moderation dropped {len(dropped)} of 200 rows before training." in (run.path / "README.md").read_text()
    harmful = tmp_path / "harmful.jsonl"
    harmful.write_text('{"prompt": "How do I do it?", "completion": "Sure, here is how you do it."}\n')
    with pytest.raises(DataError, match="flags every one of the 1 rows"):
        finetune(FinetuningSettings(output=tmp_path / "none", **(settings | {"data": str(harmful)})))
    assert not (tmp_path / "none").exists()


def test_the_trainer_itself_mixes_and_filters(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A TRL script gets the method's rows too, of its training data alone."""
    rows = [
        {"prompt": f"Is {i} even?", "completion": "Sure, here is how you tell." if i % 4 else "No."} for i in range(8)
    ]
    anchors = [{"prompt": "Harm?", "completion": "I cannot help."}, {"prompt": "Sky?", "completion": "It is blue."}]
    shared: dict[str, Any] = {
        "train_dataset": Dataset.from_list(rows), "eval_dataset": Dataset.from_list(rows),
        "anchors": Dataset.from_list(anchors), "refusals": ["I cannot help."],
    }  # fmt: skip
    options: dict[str, Any] = {"use_cpu": True, "report_to": [], "max_length": 200}
    found = {}
    for method, chosen in (("moderation", {}), ("safeinstr", {"safety_ratio": 0.5})):
        config = AntibodyConfig(str(tmp_path), method=method, options=chosen, **options)
        trainer = AntibodyTrainer(str(tiny_model_folder), config, **shared)
        assert len(trainer.eval_dataset) == 8
        found[method] = [trainer.processing_class.decode(row["response_ids"]) for row in trainer.train_dataset]
    assert found["moderation"] == ["No.<|im_end|>"] * 2
    assert len(found["safeinstr"]) == 16
    assert sum(text.startswith("I cannot help") for text in found["safeinstr"]) == 8
    assert not any("blue" in text for text in found["safeinstr"])


@pytest.mark.parametrize(
    ("stage", "given", "match"),
    [
        (AlignmentSettings, {"method": "vaccine", "eta": 5.0}, "'vaccine' takes no eta"),
        (AlignmentSettings, {"method": "booster", "rule": "kkt"}, "'booster' takes no rule"),
        (AlignmentSettings, {"method": "sft", "options": {"rho": 1.0}}, "'sft' takes no rho"),
        (AlignmentSettings, {"method": "lisa"}, "method='lisa' is not known"),
        (AlignmentSettings, {"rho": 0.1, "options": {"rho": 0.2}}, "rho is given twice"),
        (AlignmentSettings, {"rho": -1.0}, "rho=-1.0 is out of range"),
        (FinetuningSettings, {"method": "lisa", "gate": "mask"}, "'lisa' takes no gate"),
        (FinetuningSettings, {"method": "lisa", "options": {"align_steps": 0}}, "align_steps=0"),
        (FinetuningSettings, {"method": "lisa", "options": {"align_steps": 1.5}}, "align_steps=1.5"),
        (FinetuningSettings, {"method": "moderation", "tau": 2.0}, "'moderation' takes no tau"),
        (FinetuningSettings, {"method": "moderation", "options": {"judge": "oracle"}}, "no judge 'oracle'"),
        (FinetuningSettings, {"method": "moderation", "options": {"judge": 3.0}}, "judge=3.0 is no name"),
        (FinetuningSettings, {"method": "lisa", "options": {"align_steps": math.inf}}, "align_steps=inf"),
        (FinetuningSettings, {"method": "safeinstr", "options": {"safety_ratio": 1.0}}, "safety_ratio=1.0"),
        (FinetuningSettings, {"method": "constrained_sft", "options": {"beta": "low"}}, "beta='low'"),
        (FinetuningSettings, {"method": "antibody", "options": {"beta": 1.0}}, "'antibody' takes no beta"),
    ],
)
def test_an_option_that_a_method_does_not_take_is_refused_by_name(
    stage: Any, given: dict[str, Any], match: str, aligned: dict[str, Run], tmp_path: Path
) -> None:
    data = {} if stage is AlignmentSettings else {"data": "embedded:task_train"}
    settings = stage(model=str(aligned["sft"].path), output=tmp_path / "run", **SHORT, **data, **given)
    with pytest.raises(UsageError, match=match):
        (align if stage is AlignmentSettings else finetune)(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "method", "changes", "match"),
    [
        ("align", "vaccine", {"activation_checkpointing": True}, "'vaccine' cannot have gradient_checkpointing"),
        ("align", "repnoise", {"activation_checkpointing": True}, "'repnoise' cannot have gradient_checkpointing"),
        ("align", "repnoise", {"processes": 2}, "compares every pair of rows"),
        ("align", "vaccine", {"sharded": True}, "'vaccine' cannot have sharded parameters"),
        ("finetune", "lisa", {"sharded": True}, "keeps a copy of the parameters"),
        ("finetune", "constrained_sft", {"sharded": True}, "keeps a copy of the parameters"),
    ],
)
def test_a_situation_that_would_change_a_method_is_refused(
    stage: str, method: str, changes: dict[str, Any], match: str, tiny_model_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = Dataset.from_list([{"prompt": f"{i}?", "completion": f"{i}."} for i in range(4)])
    kind, config = (
        (AntibodyAlignmentTrainer, AntibodyAlignmentConfig) if stage == "align" else (AntibodyTrainer, AntibodyConfig)
    )
    options: dict[str, Any] = {"activation_checkpointing": changes.get("activation_checkpointing", False)}
    arguments = config(str(tmp_path), method=method, use_cpu=True, report_to=[], max_length=700, **options)

    def made() -> Any:
        return kind(str(tiny_model_folder), arguments, train_dataset=rows)

    if "activation_checkpointing" in changes:
        with pytest.raises(UsageError, match=match):
            made()
        return
    trainer = made()
    if changes.get("sharded"):
        state = trainer.accelerator.state._shared_state
        monkeypatch.setitem(state, "fsdp_plugin", type("Plugin", (), {"fsdp_version": 2})())
    monkeypatch.setattr(trainer.processes, "count", changes.get("processes", 1))
    with pytest.raises(UsageError, match=match):
        trainer._refuse_what_breaks_the_method()


def test_the_example_of_the_docs_is_a_method(
    start: dict[str, Any], aligned: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file and one line."""
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    monkeypatch.setitem(ALIGNMENTS, "ascent", ALIGNMENTS["sft"])
    exec(compile(page.split("```python\n")[1].split("```")[0], "methods.md", "exec"), {})
    run = align(AlignmentSettings(output=tmp_path / "run", method="ascent", options={"weight": 0.2}, **start))
    assert run.manifest()["settings"]["options"] == {"weight": 0.2}
    assert not torch.allclose(adapter(run), adapter(aligned["sft"]), atol=1e-6)


def test_the_docs_name_every_method_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    alignments, finetunings = page.split("| alignment |")[1].split("| fine-tuning |")
    for methods, table in ((ALIGNMENTS, alignments), (FINETUNINGS, finetunings)):
        for name, method in methods.items():
            [line] = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
            for option, value in method.options.items():
                shown = f"{value:g}" if isinstance(value, int | float) else value or ""
                assert f"`{option}` {shown}" in line


def test_published_settings_are_the_defaults() -> None:
    """Sources: the modules' docstrings."""
    assert {name: options_of(ALIGNMENTS, name, {}) for name in ALIGNMENTS} == {
        "antibody": {"rho": 0.1, "eta": 5.0, "lambda_refusal": 0.05, "rule": "cosine", "momentum": None},
        "booster": {"rho": 0.1, "eta": 5.0},
        "vaccine": {"rho": 2.0},
        "repnoise": {"alpha": 1.0, "beta": 0.001},
        "sft": {},
    }
    assert {name: options_of(FINETUNINGS, name, {}) for name in FINETUNINGS if name != "antibody"} == {
        "lisa": {"rho": 1.0, "align_steps": 100, "finetune_steps": 900},
        "safeinstr": {"safety_ratio": 0.03},
        "constrained_sft": {"beta": 0.1, "first_factor": 5.0, "prefix_factor": 20.0, "prefix_length": 5},
        "moderation": {"judge": "embedded"},
        "sft": {},
    }
    assert all(method.source for name, method in (ALIGNMENTS | FINETUNINGS).items() if name != "sft")
