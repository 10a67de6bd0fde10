"""How fast evaluation is: generation in batches against one prompt after the other, and `antibody screen` as a process.

python scripts/evaluation_speed.py [--model smollm2-135m]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import cyclopts

from antibody.benchmarks.speed.rows import finetuning_rows
from antibody.data import corpus
from antibody.evaluation.generation import generate
from antibody.files import to_json, write_jsonl
from antibody.models.run import load_model
from antibody.names import BUNDLED_NAME

PROMPTS, NEW_TOKENS, BATCH_SIZE, ROUNDS = 32, 32, 32, 3
SCREENED_ROWS = 1000


def main(*, model: str = BUNDLED_NAME) -> None:
    loaded = load_model(model)
    prompts = [record.prompt for record in corpus.harmful("evaluation")[:PROMPTS]]
    laps: dict[int, list[float]] = {BATCH_SIZE: [], 1: []}
    answers = {}
    for _ in range(ROUNDS):
        for batch_size, seconds in laps.items():
            started = time.perf_counter()
            answers[batch_size] = generate(
                loaded.model, loaded.tokenizer, prompts, max_new_tokens=NEW_TOKENS, batch_size=batch_size
            )
            seconds.append(time.perf_counter() - started)
    batched, single = median(laps[BATCH_SIZE]), median(laps[1])
    found = {
        "prompts": PROMPTS,
        "batched_seconds": batched,
        "one_by_one_seconds": single,
        "times_as_fast": single / batched,
        "same_answers": sum(map(str.__eq__, answers[1], answers[BATCH_SIZE])),
        "screened_rows": SCREENED_ROWS,
        "screen_seconds": _screen(model),
    }
    print(to_json(found, indent=2))


def _screen(model: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        records = finetuning_rows("short", SCREENED_ROWS, seed=0)
        write_jsonl(data, [{"prompt": record.request, "completion": record.response} for record in records])
        command = [sys.executable, "-m", "antibody", "screen", "--model", model, "--data", str(data), "--json"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


if __name__ == "__main__":
    cyclopts.run(main)
