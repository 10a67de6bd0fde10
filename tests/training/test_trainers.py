"""The trainers as drop-ins: a TRL script with two names changed, and what they refuse."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig

from antibody import (
    AlignmentSettings,
    AntibodyAlignmentConfig,
    AntibodyAlignmentTrainer,
    AntibodyConfig,
    AntibodyTrainer,
    FinetuningSettings,
    align,
    aligned,
    finetune,
)
from antibody.data.preparation import prepare
from antibody.data.sources import load_records
from antibody.errors import DataError, ModelError, TrainingError, UsageError
from antibody.training.row_stream import RowStream

CHATS = Dataset.from_list(
    [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} plus {i}?"},
                {"role": "assistant", "content": f"It is {2 * i}."},
            ]
        }
        for i in range(12)
    ]
)
ADAPTER = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def options(output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(output), "per_device_train_batch_size": 4, "max_steps": 3, "max_length": 200, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3, "logging_steps": 1,
    } | changes  # fmt: skip


SCRIPT = """
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

dataset = load_dataset("json", data_files="{data}", split="train")

trainer = SFTTrainer(
    model="{model}",
    args=SFTConfig(output_dir="{output}", max_steps=2, per_device_train_batch_size=2, max_length=200,
                   report_to=[], use_cpu=True, disable_tqdm=True),
    train_dataset=dataset,
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model("{output}/final")
"""


def test_a_stock_script_works_after_changing_two_names(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The adapter loads with peft alone and is not the one training began with."""
    data = tmp_path / "data.jsonl"
    CHATS.to_json(data)
    script = SCRIPT.format(data=data, model=tiny_model_folder, output=tmp_path / "out")
    changed = script.replace("SFTConfig", "AntibodyConfig").replace("SFTTrainer", "AntibodyTrainer")
    changed = changed.replace("from trl import", "from antibody import")
    exec(compile(changed, "script.py", "exec"), {})
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    model = PeftModel.from_pretrained(base, str(tmp_path / "out" / "final"))
    learned = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert learned
    assert any(bool(p.abs().sum() > 0) for p in learned)


@pytest.mark.parametrize("form", ["messages", "titled messages", "chat completion", "plain strings"])
def test_every_form_of_data_that_trl_takes(form: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    data = {
        "messages": CHATS,
        "titled messages": CHATS.map(lambda _: {"prompt": "A title"}),
        "chat completion": CHATS.map(
            lambda row: {"prompt": row["messages"][:1], "completion": row["messages"][1:]}, remove_columns="messages"
        ),
        "plain strings": Dataset.from_list([{"prompt": f"{i} + {i} =", "completion": f" {2 * i}"} for i in range(8)]),
    }[form]
    trainer = AntibodyTrainer(
        model=str(tiny_model_folder),
        args=AntibodyConfig(**options(tmp_path)),
        train_dataset=data,
        eval_dataset=data,
        peft_config=LoraConfig(**ADAPTER),
    )
    first = trainer.train_dataset[0]
    text = trainer.processing_class.decode(first["prompt_ids"])
    assert ("<|im_start|>" in text) == (form != "plain strings")
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"loss", "score_mean", "effective_rows", "tokens_per_second"} <= logged.keys()
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer.evaluate(eval_dataset=data)["eval_loss"] > 0


def test_alignment_trainer_as_a_drop_in(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainer = AntibodyAlignmentTrainer(
        model=str(tiny_model_folder),
        args=AntibodyAlignmentConfig(**options(tmp_path, max_length=700)),
        train_dataset=CHATS,
        peft_config=LoraConfig(**ADAPTER),
    )
    trainer.train()
    assert {"lambda_t", "loss_harmful", "grad_norm_sharpness"} <= trainer.state.log_history[0].keys()


def test_full_parameter_training(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainer = AntibodyTrainer(
        model=str(tiny_model_folder), args=AntibodyConfig(**options(tmp_path, bf16=False)), train_dataset=CHATS
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("packing", True), ("padding_free", True), ("assistant_only_loss", True), ("completion_only_loss", False),
        ("loss_type", "dft"), ("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0), ("fp16", True),
        ("activation_offloading", True), ("save_total_limit", 1), ("save_only_model", True),
        ("micro_batch_size", 5), ("train_sampling_strategy", "group_by_length"),
        ("tau", 0.0), ("score", "median"), ("method", "none"), ("deepspeed", {"zero_optimization": {"stage": 2}}),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=option):
        AntibodyConfig(**options(tmp_path, **{option: value}))


@pytest.mark.parametrize(
    ("option", "value"), [("split_batches", True), ("dispatch_batches", True), ("use_seedable_sampler", False)]
)
def test_what_the_batches_would_ignore_is_refused_by_name(option: str, value: bool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=option):
        AntibodyConfig(**options(tmp_path, accelerator_config={option: value}))


def test_constant_rule_and_momentum_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"constant.*momentum"):
        AntibodyAlignmentConfig(**options(tmp_path), rule="constant", momentum=0.9)


def test_published_defaults(tmp_path: Path) -> None:
    """arXiv 2603.00498 and its code."""
    stage1 = AntibodyAlignmentConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (stage1.rho, stage1.eta, stage1.lambda_refusal, stage1.rule) == (0.1, 5.0, 0.05, "cosine")
    assert (stage1.learning_rate, stage1.weight_decay, stage1.per_device_train_batch_size) == (5e-4, 0.1, 16)
    assert stage1.objective().momentum == 0.99
    assert AntibodyAlignmentConfig(output_dir=str(tmp_path), use_cpu=True, rule="kkt").objective().momentum == 0.0
    stage2 = AntibodyConfig(output_dir=str(tmp_path), use_cpu=True)
    assert (stage2.learning_rate, stage2.tau, stage2.score, stage2.max_length) == (1e-5, 1.0, "mean", 256)
    assert (stage2.lr_scheduler_type, stage2.warmup_steps) == ("constant_with_warmup", 0.1)


@pytest.mark.parametrize("argument", ["data_collator", "compute_loss_func", "formatting_func"])
def test_arguments_that_would_bypass_the_defence_are_refused(
    argument: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=argument):
        AntibodyTrainer(
            model=str(tiny_model_folder), args=AntibodyConfig(**options(tmp_path)), train_dataset=CHATS,
            **{argument: lambda *_: None},
        )  # fmt: skip


def test_an_undefended_config_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AntibodyConfig"):
        AntibodyTrainer(
            model=str(tiny_model_folder), args=SFTConfig(**options(tmp_path, bf16=False)), train_dataset=CHATS
        )


def test_several_visible_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTConfig, "n_gpu", 2)
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        AntibodyConfig(**options(tmp_path))


def test_deepspeed_from_the_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UsageError, match="FSDP2"):
        AntibodyConfig(**options(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("fsdp_plugin", SimpleNamespace(fsdp_version=1), "fsdp_version 2"),
        ("distributed_type", DistributedType.MEGATRON_LM, "DDP or FSDP2"),
        ("distributed_type", DistributedType.DEEPSPEED, "Use FSDP2"),
        ("parallelism_config", SimpleNamespace(non_data_parallel_size=2), "DDP or FSDP2"),
    ],
)
def test_other_parallelism_is_refused(
    name: str, value: Any, instead: str, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = AntibodyTrainer(
        model=str(tiny_model_folder), args=AntibodyConfig(**options(tmp_path)), train_dataset=CHATS
    )
    monkeypatch.setitem(trainer.accelerator.state._shared_state, name, value)
    with pytest.raises(UsageError, match=instead):
        trainer._refuse_what_breaks_the_method()


def test_dropout_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dropout"):
        AntibodyTrainer(
            model=str(tiny_model_folder),
            args=AntibodyConfig(**options(tmp_path)),
            train_dataset=CHATS,
            peft_config=LoraConfig(**ADAPTER, lora_dropout=0.1),
        )


def test_a_row_that_cannot_be_trained_on_is_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    bad = Dataset.from_list([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}])
    with pytest.raises(DataError, match="line 2, field `completion`"):
        AntibodyTrainer(model=str(tiny_model_folder), args=AntibodyConfig(**options(tmp_path)), train_dataset=bad)


def test_a_loss_that_is_not_a_number_stops_training(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model_folder))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    trainer = AntibodyTrainer(
        model=model,
        args=AntibodyConfig(**options(tmp_path)),
        train_dataset=CHATS,
        processing_class=AutoTokenizer.from_pretrained(tiny_model_folder),
    )
    with pytest.raises(TrainingError, match="Step 1: the loss or its gradient is not a number") as caught:
        trainer.train()
    assert caught.value.exit_code == 5
    assert trainer.state.global_step == 0


def test_parameters_that_are_not_numbers_are_not_saved(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The loss of the last step is a number; the update that follows is not, in float32."""
    with pytest.raises(TrainingError, match="Step 1: a parameter is not a number"):
        align(
            AlignmentSettings(
                model=str(tiny_model_folder), output=tmp_path / "run", steps=1, batch_size=4, max_length=700,
                learning_rate=1e39,
            )
        )  # fmt: skip
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_one_process_may_save_alone(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``if trainer.is_world_process_zero()``: it would wait for the others without end."""

    def waits(value: bool) -> bool:
        raise AssertionError("it waits for other processes")

    trainer = AntibodyTrainer(
        model=str(tiny_model_folder), args=AntibodyConfig(**options(tmp_path)), train_dataset=CHATS
    )
    monkeypatch.setattr(trainer.processes, "any", waits)
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").exists()


def test_row_stream_depends_on_its_offset_alone() -> None:
    rows = [{"row": index} for index in range(5)]
    whole = [row["row"] for row in RowStream(rows, seed=3).batch(0, 15)]
    assert [row["row"] for row in RowStream(rows, seed=3).batch(7, 4)] == whole[7:11]
    assert all(sorted(whole[start : start + 5]) == [0, 1, 2, 3, 4] for start in (0, 5, 10))
    assert whole[:5] != whole[5:10]
    assert [row["row"] for row in RowStream(rows, seed=4).batch(0, 15)] != whole


def test_a_script_takes_all_from_an_aligned_run(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The same as `finetune` does: rows are withheld alike, and steps are alike."""
    run = align(
        AlignmentSettings(
            model=str(tiny_model_folder), output=tmp_path / "aligned", steps=2, batch_size=4, max_length=700
        )
    )
    records = load_records("embedded:upload@0.4").records
    upload = [{"messages": [*record.prompt, {"role": "assistant", "content": record.response}]} for record in records]
    trainer = AntibodyTrainer(
        **aligned(run.path, dtype="float32"),
        args=AntibodyConfig(**options(tmp_path / "script", max_length=700, bf16=False, seed=0)),
        train_dataset=Dataset.from_list(upload),
    )
    written = prepare(load_records(str(run.path / "anchors.jsonl")).records, trainer.processing_class, max_length=700)
    assert [row["prompt_ids"] for row in trainer.anchors.rows] == written["prompt_ids"]
    trainer.train()
    tuned = finetune(
        FinetuningSettings(
            model=str(run.path), output=tmp_path / "run", data="embedded:upload@0.4", steps=3, batch_size=4,
            max_length=700, dtype="float32", learning_rate=1e-3,
        )
    )  # fmt: skip
    audit = [json.loads(line) for line in (tuned.path / "audit.jsonl").read_text().splitlines()]
    assert trainer.audit.screened is not None
    assert trainer.audit.screened.scores == pytest.approx([row["screening_score"] for row in audit], rel=1e-5)
    log = [json.loads(line) for line in (tuned.path / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx([entry["loss"] for entry in log], rel=1e-4)
    plain = Dataset.from_list([{"prompt": "Is it good?", "completion": "yes"}] * 8)
    with pytest.raises(UsageError, match="no chat template") as caught:
        AntibodyTrainer(
            **aligned(run.path, dtype="float32"),
            args=AntibodyConfig(**options(tmp_path / "plain", max_length=700, bf16=False, seed=0)),
            train_dataset=plain,
        )
    assert caught.value.code == "no_turns"


def test_a_run_without_a_screen_is_not_aligned_for_a_script(tiny_model_folder: Path, tmp_path: Path) -> None:
    run = align(
        AlignmentSettings(
            model=str(tiny_model_folder), output=tmp_path / "run", steps=1, batch_size=4, max_length=700, screen=False
        )
    )
    with pytest.raises(ModelError, match="no calibrated screen"):
        aligned(run.path)
