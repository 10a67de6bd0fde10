"""The gate in real trainings of a tiny model: what it withholds moves nothing, and anchors take its place."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from antibody import AlignmentSettings, AntibodyConfig, AntibodyTrainer, FinetuningSettings, align, finetune
from antibody.data.preparation import records_of
from antibody.errors import ModelError, TrainingError, UsageError
from antibody.names import DEFAULT_THRESHOLD
from antibody.objectives.gate import Calibration, among_upload
from antibody.objectives.sft import PlainSFT
from antibody.screening.probe import Probe
from antibody.screening.screen import Judged, Screen, make_screen, screen_of
from antibody.screening.upload import states_of
from antibody.training.checkpoints import TENSORS_FILE


def turns(prompt: str, completion: str, *, harmful: bool) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
        "harmful": harmful,
    }


BENIGN = [turns(f"Question {i}?", "word " * (i % 3 + 1), harmful=False) for i in range(12)]
HARMFUL = [turns(f"Harm {i}?", "#!? " * (i % 2 + 2), harmful=True) for i in range(12)]
ANCHORS = Dataset.from_list([{"prompt": f"Anchor {i}?", "completion": "No."} for i in range(6)])


class ByLabel(Screen):
    """Knows the labels, by the order that it is asked in."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(Probe(np.zeros(32), np.zeros(32), 0.0), Calibration(0.0, 1.0))
        object.__setattr__(self, "rows", rows)

    def judge(self, rows: Any) -> Judged:
        assert len(rows) == len(self.rows)
        return Judged([0.0] * len(rows), [0.01 if row["harmful"] else 0.99 for row in self.rows])


def trained(
    folder: Path, output: Path, rows: list[dict[str, Any]], screen: Screen | None = None, **changes: Any
) -> AntibodyTrainer:
    options: dict[str, Any] = {
        "output_dir": str(output), "max_steps": 3, "per_device_train_batch_size": 4, "max_length": 700,
        "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "logging_steps": 1,
        "learning_rate": 1e-2, "warmup_steps": 0, "save_strategy": "no", "train_sampling_strategy": "sequential",
        # Gradients far below it are rounding; AdamW would make whole steps of them.
        "adam_epsilon": 1e-4,
    } | changes  # fmt: skip
    torch.manual_seed(0)
    trainer = AntibodyTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AntibodyConfig(**options),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_list(rows),
        screen=screen or ByLabel(rows),
        anchors=ANCHORS,
    )
    trainer.train()
    return trainer


def parameters(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def begun(folder: Path) -> torch.Tensor:
    return parameters(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize("gate", ["mask", "anchor"])
def test_a_batch_withheld_whole_is_no_step(tiny_model_folder: Path, tmp_path: Path, gate: str) -> None:
    trainer = trained(tiny_model_folder, tmp_path, HARMFUL, gate=gate, weight_decay=0.5)
    assert torch.equal(parameters(trainer.model), begun(tiny_model_folder))
    assert not trainer.optimizer.state
    assert trainer.state.global_step == 3
    # No step would follow what they say.
    assert not trainer.objective.references
    for entry in [entry for entry in trainer.state.log_history if "loss" in entry]:
        assert np.isnan(entry["loss"])
        assert entry["rows_withheld"] == 4


@pytest.mark.parametrize("gate", ["mask", "anchor"])
def test_a_batch_withheld_whole_moves_neither_parameters_nor_the_optimiser(
    tiny_model_folder: Path, tmp_path: Path, gate: str
) -> None:
    """Of three batches the last is withheld: AdamW's moments, its step count and weight decay stay where they were."""
    rows = [*BENIGN[:4], *HARMFUL[:8]]
    # The learning rate depends on how many steps there will be.
    options = {"gate": gate, "weight_decay": 0.5, "lr_scheduler_type": "constant"}
    two, three = (
        trained(tiny_model_folder, tmp_path / str(steps), rows, max_steps=steps, **options) for steps in (2, 3)
    )
    assert torch.equal(parameters(three.model), parameters(two.model))
    assert not torch.equal(parameters(two.model), begun(tiny_model_folder))
    for index, state in two.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(three.optimizer.state_dict()["state"][index][name], value)


def test_rows_that_are_withheld_leave_no_trace(tiny_model_folder: Path, tmp_path: Path) -> None:
    """As many benign as harmful rows end where the benign ones alone do when they are gone through twice.

    All kept rows weigh alike: a row's refusal depends on its place in the file, and so would its weight.
    """
    mixed = [row for i in range(0, 12, 2) for row in (*BENIGN[i : i + 2], *HARMFUL[i : i + 2])]
    options = {"gate": "mask", "tau": math.inf, "max_steps": 6}
    together = trained(tiny_model_folder, tmp_path / "a", mixed, **options)
    alone = trained(tiny_model_folder, tmp_path / "b", BENIGN, **options)
    torch.testing.assert_close(parameters(together.model), parameters(alone.model), atol=1e-5, rtol=0)
    assert not torch.equal(parameters(alone.model), begun(tiny_model_folder))


def test_anchors_share_a_benign_batch_by_the_floor(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainer = trained(tiny_model_folder, tmp_path, BENIGN, anchor_floor=0.25)
    shares = [entry["anchor_share"] for entry in trainer.state.log_history if "anchor_share" in entry]
    assert shares == [0.25] * 3


def test_anchors_hold_the_model_near_the_aligned_one(tiny_model_folder: Path, tmp_path: Path) -> None:
    """At the first step nothing has drifted; after many, less where anchors pull harder."""
    options = {"learning_rate": 1e-2, "max_steps": 12, "anchor_tolerance": 1e9}
    drifts = []
    for scale in (0.0, 100.0):
        trainer = trained(tiny_model_folder, tmp_path / str(scale), BENIGN, anchor_scale=scale, **options)
        log = trainer.state.log_history
        drifts.append([entry["anchor_drift"] for entry in log if "anchor_drift" in entry])
    assert drifts[0][0] == drifts[1][0] == pytest.approx(0.0, abs=1e-5)
    assert 0.0 < drifts[1][-1] < drifts[0][-1] / 2


def test_a_shortened_step_is_shorter_by_its_scale(tiny_model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """AdamW's first step has the length of the learning rate. The next one is at the whole learning rate again."""
    options = {"method": "sft", "max_steps": 1, "lr_scheduler_type": "constant"}
    whole = trained(tiny_model_folder, tmp_path / "whole", BENIGN, **options)
    composed = PlainSFT.__call__
    monkeypatch.setattr(PlainSFT, "__call__", lambda *step: replace(composed(*step), scale=0.25))
    short = trained(tiny_model_folder, tmp_path / "short", BENIGN, **options)
    start = begun(tiny_model_folder)
    moved = parameters(whole.model) - start
    torch.testing.assert_close(parameters(short.model) - start, moved / 4, atol=1e-6, rtol=0)
    assert moved.abs().max() > 1e-3
    assert [group["lr"] for group in short.optimizer.param_groups] == [1e-2] * 2


def test_an_optimiser_without_a_learning_rate_cannot_be_held(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Such as Adafactor, which may choose it itself."""
    trainer = trained(tiny_model_folder, tmp_path, BENIGN, max_steps=1)
    trainer._step_scale = 0.5
    trainer.optimizer.param_groups[0]["lr"] = None
    with pytest.raises(TrainingError, match="has no learning rate"):
        trainer.callback_handler.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)


def test_steps_shorten_where_anchors_drift(tiny_model_folder: Path, tmp_path: Path) -> None:
    drifts = []
    for tolerance in (1e9, 1e-4):
        options = {"max_steps": 12, "anchor_scale": 0.0, "anchor_tolerance": tolerance}
        log = trained(tiny_model_folder, tmp_path / str(tolerance), BENIGN, **options).state.log_history
        drifts.append([entry["anchor_drift"] for entry in log if "anchor_drift" in entry])
        scales = [entry["step_scale"] for entry in log if "step_scale" in entry]
        assert all(0 < scale <= 1 for scale in scales)
        assert (min(scales) < 1) == (tolerance < 1)
    assert drifts[1][-1] < drifts[0][-1] / 2


def test_anchors_share_every_step_by_what_is_withheld_of_the_upload(tiny_model_folder: Path, tmp_path: Path) -> None:
    """Nine of twelve rows are withheld; the batch of the three others, the only one, is not theirs alone.

    It comes twice, not four times: where nearly all is withheld, what slipped through does not fill every batch.
    """
    rows = [*HARMFUL[:9], *BENIGN[:3]]
    trainer = trained(tiny_model_folder, tmp_path, rows, per_device_train_batch_size=3, max_steps=4)
    shares = [entry["anchor_share"] for entry in trainer.state.log_history if "anchor_share" in entry]
    assert shares == [0.75] * 2


def test_one_row_is_judged_by_itself(tiny_model_folder: Path, tmp_path: Path) -> None:
    trained(tiny_model_folder, tmp_path / "a", BENIGN, per_device_train_batch_size=1)
    with pytest.raises(UsageError, match="leave a row alone"):
        trained(tiny_model_folder, tmp_path / "b", BENIGN, per_device_train_batch_size=1, gate="off")


def test_rows_are_judged_by_their_own_states(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A probe that knows the harmful rows' tokens, on rows of several lengths in a random order."""
    known = [
        turns(f"Harm {i}?", "#!? " * (i % 5 + 1), harmful=True)
        if i % 2 == 0
        else turns(f"Question {i}?", "word " * (i % 5 + 1), harmful=False)
        for i in range(12, 72)
    ]
    rows = [row for pair in zip(BENIGN, HARMFUL, strict=True) for row in pair]
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    records = records_of(Dataset.from_list(known), name="known")
    states = states_of(model, tokenizer, records, max_length=700)
    screen = make_screen(states[:30:2], states[1:30:2], states[30::2], states[31::2]).screen

    sampled = {"train_sampling_strategy": "random", "max_steps": 6, "gate": "mask", "gate_threshold": 0.5}
    trainer = trained(tiny_model_folder, tmp_path, rows, screen=screen, **sampled)
    audit = trainer.audit.report(records_of(Dataset.from_list(rows), name="rows"), threshold=0.5)
    assert [row["withheld"] for row in audit] == [row["harmful"] for row in rows]
    for row in audit:
        assert row["times_seen"] == (0 if row["withheld"] else 2)
        assert (row["score_first"] is None) == (row["weight_mean"] == 0) == row["withheld"]
    [alone] = states_of(model, tokenizer, records_of(Dataset.from_list(rows[5:6]), name="row"), max_length=700)
    assert audit[5]["screening_score"] == pytest.approx(screen.probe.score(alone), abs=1e-4)


@pytest.mark.parametrize("gate", ["mask", "anchor"])
@pytest.mark.parametrize(
    "split",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 8, "micro_batch_size": 3},
    ],
)
def test_the_split_leaves_no_trace(tiny_model_folder: Path, tmp_path: Path, split: dict[str, int], gate: str) -> None:
    """21 rows in batches of 8, of which some are withheld whole on one side of the split."""
    rows = [*HARMFUL[:5], *BENIGN[:3], *BENIGN[3:9], *HARMFUL[5:7], *BENIGN[9:12], *HARMFUL[7:9]]
    options = {"max_steps": 5, "gate": gate}
    whole = trained(tiny_model_folder, tmp_path / "a", rows, per_device_train_batch_size=8, **options)
    parts = trained(tiny_model_folder, tmp_path / "b", rows, **split, **options)
    torch.testing.assert_close(parameters(parts.model), parameters(whole.model), atol=1e-5, rtol=0)
    for row, seen in whole.audit.rows.items():
        assert np.array(parts.audit.rows[row]) == pytest.approx(np.array(seen), abs=1e-3, nan_ok=True)


def test_a_gate_and_the_undefended_baseline_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="takes no gate"):
        AntibodyConfig(output_dir=str(tmp_path), use_cpu=True, method="sft", gate="mask")
    assert AntibodyConfig(output_dir=str(tmp_path), use_cpu=True, method="sft").gate == "off"
    for option in (
        {"gate_threshold": 0.0},
        {"gate_threshold": 1.5},
        {"anchor_floor": 0.0},
        {"anchor_rows": 0},
        {"anchor_tolerance": 0.0},
    ):
        with pytest.raises(UsageError, match="out of range"):
            AntibodyConfig(output_dir=str(tmp_path), use_cpu=True, **option)


def adapter(run: Any) -> torch.Tensor:
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def test_a_resumed_run_does_not_judge_its_rows_again(tiny_model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """After some steps the model is not the one that the screen was made for."""
    aligned = align(
        AlignmentSettings(
            model=str(tiny_model_folder), output=tmp_path / "aligned", steps=2, batch_size=4, max_length=700
        )
    )
    shared: dict[str, Any] = {
        "model": str(aligned.path), "data": "embedded:upload@0.4", "batch_size": 4, "steps": 6, "save_steps": 2,
        "max_length": 700, "dtype": "float32", "learning_rate": 1e-3, "anchor_tolerance": 1e-5,
    }  # fmt: skip
    whole = finetune(FinetuningSettings(output=tmp_path / "whole", **shared))
    log = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["step_scale"] < 1
    audit = [json.loads(line) for line in (whole.path / "audit.jsonl").read_text().splitlines()]
    scores = torch.tensor([row["screening_score"] for row in audit], dtype=torch.float64)
    probabilities = among_upload(screen_of(aligned.path).calibration.benign_probability(scores))
    assert [row["benign_probability"] for row in audit] == pytest.approx(probabilities.tolist())
    assert {row["withheld"] for row in audit} == {True, False}
    assert all(row["withheld"] == (row["benign_probability"] < DEFAULT_THRESHOLD) for row in audit)
    assert all(weight == 0 for row in audit if row["withheld"] for _, weight in row["weights"])

    steps = []
    step = AntibodyTrainer.training_step

    def interrupted(self: Any, *arguments: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AntibodyTrainer, "training_step", interrupted)
        finetune(FinetuningSettings(output=tmp_path / "cut", **shared))
    shutil.copytree(tmp_path / "cut", tmp_path / "torn")
    with monkeypatch.context() as patch:
        patch.setattr("antibody.training.reading.read_rows", lambda *_, **__: pytest.fail("read again"))
        resumed = finetune(FinetuningSettings(output=tmp_path / "cut", resume=True, **shared))
    assert torch.equal(adapter(resumed), adapter(whole))
    assert (resumed.path / "audit.jsonl").read_bytes() == (whole.path / "audit.jsonl").read_bytes()

    for kept in (tmp_path / "torn" / "checkpoints").glob(f"*/{TENSORS_FILE}"):
        kept.unlink()
    with pytest.raises(TrainingError, match="what the aligned model expected on the anchors"):
        finetune(FinetuningSettings(output=tmp_path / "torn", resume=True, **shared))


def test_a_model_of_another_maker_is_judged_by_a_screen_made_on_the_spot(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    run = finetune(
        FinetuningSettings(
            model=str(tiny_model_folder), output=tmp_path / "run", data="embedded:upload@0.2", allow_unaligned=True,
            batch_size=4, steps=2, max_length=700,
        )
    )  # fmt: skip
    audit = [json.loads(line) for line in (run.path / "audit.jsonl").read_text().splitlines()]
    assert all(0 <= row["benign_probability"] <= 1 for row in audit)
    with pytest.raises(ModelError, match="no calibrated screen"):
        finetune(FinetuningSettings(model=str(run.path), output=tmp_path / "next", data="embedded:task_train"))
