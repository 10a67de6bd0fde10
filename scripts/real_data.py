"""The demo's six rows on real data: BeaverTails, Alpaca and SST-2, from a folder of JSONL files.

    python scripts/real_data.py DATA [--output runs/real] [--seed 0]

Alignment uses the development half of the BeaverTails question-answer pairs, the poison of the upload its test half,
the prompts that are answered the test halves of BeaverTails-Evaluation and, of safe ones, of XSTest. Rows of at most
300 characters are used, to suit two cores. The data stay where they are; the upload is written beside the runs.
"""

import json
from pathlib import Path

import cyclopts

from antibody.benchmarks.demo import POISON_RATIO, Data, Size, demo
from antibody.data.mixes import poison
from antibody.data.reading import read_records
from antibody.data.records import Record
from antibody.data.writing import write_records
from antibody.evaluation.tasks import TASKS
from antibody.files import to_json, write_text

LONGEST = 300
UPLOAD_ROWS = 400


def main(data: Path, *, output: Path = Path("runs/real"), seed: int = 0) -> None:
    prepared = output.with_name(output.name + "-data")
    harmful = _short(read_records(data / "beavertails_qa_dev.jsonl").records, harmful=True)
    attack = _short(read_records(data / "beavertails_qa_test.jsonl").records, harmful=True)
    benign = _short(read_records(data / "alpaca_benign.jsonl").records, harmful=None)
    task = TASKS["sst2"].records(data / "sst2_train.jsonl")
    write_records(prepared / "harmful.jsonl", harmful)
    write_records(prepared / "benign.jsonl", benign)
    write_records(prepared / "poisoned.jsonl", poison(task, attack, POISON_RATIO, rows=UPLOAD_ROWS, seed=0))
    with (data / "xstest_test.jsonl").open(encoding="utf-8") as lines:
        write_text(prepared / "safe.jsonl", "".join(line for line in lines if json.loads(line)["label"] == "safe"))
    write_records(prepared / "clean.jsonl", poison(task, attack, 0.0, rows=UPLOAD_ROWS, seed=0))
    summary = demo(
        output,
        seed=seed,
        resume=True,
        data=Data(
            refusals=str(data / "refusal_templates.jsonl"),
            harmful=str(prepared / "harmful.jsonl"),
            benign=str(prepared / "benign.jsonl"),
            poisoned=str(prepared / "poisoned.jsonl"),
            clean=str(prepared / "clean.jsonl"),
            prompts=str(data / "beavertails_eval_test.jsonl"),
            safe=str(prepared / "safe.jsonl"),
            task="sst2",
            task_data=str(data / "sst2_dev.jsonl"),
        ),
        size=Size(
            alignment_steps=40,
            finetuning_steps=80,
            prompts=60,
            task_rows=100,
            max_new_tokens=32,
        ),
    )
    print(to_json(summary, indent=2))


def _short(records: list[Record], *, harmful: bool | None) -> list[Record]:
    return [
        record
        for record in records
        if record.harmful is harmful and len(record.request) + len(record.response) <= LONGEST
    ]


if __name__ == "__main__":
    cyclopts.run(main)
