"""What one process of a distributed test runs: ``torchrun worker.py CASES.json``. Trains case by case."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from antibody import AntibodyAlignmentConfig, AntibodyAlignmentTrainer, AntibodyConfig, AntibodyTrainer
from antibody.data import corpus
from antibody.data.preparation import prepare, records_of
from antibody.data.tokenization import tokenize_records
from antibody.screening.screen import Screen, make_screen
from antibody.training.reading import shared_states

# Which rows are harmful. In order, every fourth is: of four processes one gets nothing else. Or all but the first of
# four batches of 8. Or all but thirteen, whose second pass leaves two rows for a batch: of four processes two get none.
HARMFUL: dict[str, Callable[[int], bool]] = {
    "every fourth": lambda i: i % 4 == 0,
    "whole batches": lambda i: i // 8 % 4 != 0,
    "all but thirteen": lambda i: i > 12,
}


def upload(count: int, harmful: str = "every fourth") -> Dataset:
    """Rows of different lengths."""
    return Dataset.from_list(
        [
            {
                "prompt": f"Question {i} {'long ' * (i % 5)}?",
                "completion": "#!?" * (i % 7 + 3) if HARMFUL[harmful](i) else "word " * (i * 7 % 11 + 1),
                "harmful": HARMFUL[harmful](i),
            }
            for i in range(count)
        ]
    )


def screen_for_uploads(trainer: AntibodyTrainer) -> Screen:
    """One that knows such rows by their states; the embedded rows are nothing like them."""
    records = records_of(upload(80), name="known")
    tokens = tokenize_records(records, trainer.processing_class, 700)
    states = shared_states(trainer, [(each.prompt_ids, each.response_ids) for each in tokens], "Calibrating")
    harmful, benign = (
        [state for record, state in zip(records, states, strict=True) if record.harmful is label]
        for label in (True, False)
    )
    return make_screen(harmful[:10], benign[:30], harmful[10:], benign[30:]).screen


@contextmanager
def sharding_on_cpu() -> Iterator[None]:
    """`accelerate` shards over accelerators alone. Its state is made to say that CPUs are to be too."""
    original = AcceleratorState.__init__

    def initialise(self: Any, mixed_precision: str | None = None, *arguments: Any, **options: Any) -> None:
        original(self, mixed_precision, *arguments, **options)
        if "fsdp_plugin" in self._shared_state:
            return
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
            state_dict_type="SHARDED_STATE_DICT",
            cpu_ram_efficient_loading=False,
        )
        if self.mixed_precision != "no":
            plugin.set_mixed_precision(self.mixed_precision)
        self._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}

    with patch.object(AcceleratorState, "__init__", initialise):
        yield


def train(case: dict[str, Any]) -> None:
    """One training; parameters, log and audit go to the case's ``output``."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    options = {
        "output_dir": case["output"], "max_steps": 10, "max_length": 700, "report_to": [], "use_cpu": True,
        "bf16": False, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-3,
        "max_grad_norm": 0.5,
        # AdamW makes a whole step of a gradient that is rounding error alone, in either direction; not with this.
        "adam_epsilon": 1e-6,
    } | case["options"]  # fmt: skip
    accumulated = options.get("gradient_accumulation_steps", 1)
    options["per_device_train_batch_size"] = 8 // accumulated // int(os.environ.get("WORLD_SIZE", "1"))
    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if case["lora"] else None
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": adapter,
        "train_dataset": upload(43, case["harmful"]),
        "eval_dataset": upload(8),
    }
    with sharding_on_cpu() if case["sharded"] else nullcontext():
        if case["stage"] == "align":
            attack = prepare(corpus.harmful("train")[:20], tokenizer, max_length=700, refusals=corpus.refusals())
            trainer: Any = AntibodyAlignmentTrainer(
                args=AntibodyAlignmentConfig(**options), harmful_dataset=attack, **shared
            )
        else:
            trainer = AntibodyTrainer(args=AntibodyConfig(**({"gate": "off"} | options)), **shared)
            if trainer.args.gate != "off":
                trainer.screen = screen_for_uploads(trainer)
    trainer.train(resume_from_checkpoint=case["resume"])
    found = {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().clone()
        for name, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
        if p.requires_grad
    }
    if trainer.accelerator.is_main_process:
        torch.save(found, Path(case["output"]) / "parameters.pt")
        (Path(case["output"]) / "log.json").write_text(json.dumps(trainer.state.log_history))
        (Path(case["output"]) / "audit.json").write_text(json.dumps(sorted(trainer.audit.state_dict()["rows"])))
        (Path(case["output"]) / "screened.json").write_text(json.dumps(trainer.audit.screened))
    trainer.accelerator.wait_for_everyone()
    AcceleratorState._reset_state()


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text()):
        train(each)
    PartialState().destroy_process_group()
    # Seen once in ten: a thread of gloo's outlives its group and aborts the interpreter's end.
    os._exit(0)
