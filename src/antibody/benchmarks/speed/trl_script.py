"""A plain TRL script, as someone writes it who has never heard of us: what `antibody finetune` is timed against.

    python trl_script.py --model M --data rows.jsonl --output OUT --steps 100

It imports nothing of this package, so that its start-up is TRL's own.
"""

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main() -> None:
    parser = argparse.ArgumentParser(description="LoRA fine-tuning with TRL.")
    parser.add_argument("--model", required=True, help="Hub id or folder.")
    parser.add_argument("--data", required=True, help="JSONL with prompt and completion, both lists of messages.")
    parser.add_argument("--output", required=True, help="Where checkpoints and the adapter go.")
    parser.add_argument("--steps", type=int, required=True, help="Optimiser steps.")
    parser.add_argument("--batch-size", type=int, required=True, help="Rows of a step.")
    parser.add_argument("--learning-rate", type=float, required=True, help="AdamW's.")
    parser.add_argument("--max-length", type=int, required=True, help="Most tokens of a row.")
    parser.add_argument("--lora-r", type=int, required=True, help="Rank of the adapter.")
    parser.add_argument("--lora-alpha", type=int, required=True, help="Scale of the adapter.")
    parser.add_argument("--target-modules", nargs="+", required=True, help="Layers that the adapter changes.")
    parser.add_argument("--dtype", required=True, help="float32, bfloat16 or float16.")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="TRL's default, off here.")
    parser.add_argument("--cpu", action="store_true", help="Train on the CPU.")
    options = parser.parse_args()

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)),
        args=SFTConfig(
            output_dir=options.output,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            max_length=options.max_length,
            gradient_checkpointing=options.gradient_checkpointing,
            bf16=False,
            use_cpu=options.cpu,
            report_to="none",
        ),
        train_dataset=load_dataset("json", data_files=options.data, split="train"),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        peft_config=LoraConfig(
            r=options.lora_r,
            lora_alpha=options.lora_alpha,
            target_modules=options.target_modules,
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    trainer.save_model(options.output)


if __name__ == "__main__":
    main()
