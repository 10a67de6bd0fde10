"""How well aligned models tell harmful prompts from safe ones, and where greedy decoding draws the line.

    python scripts/operating_point.py DATA RUN [RUN ...] [--half test]

A prompt's score is the probability that its answer begins as a refusal does: with the first token of one that the run
was aligned on. The table has the score's AUROC for harmful prompts (BeaverTails-Evaluation) against safe ones that
look unsafe (XSTest); the share of harmful prompts that score above all but 5, 10 and 20% of the safe ones; and the
share of prompts whose likeliest first token is a refusal's, which is how greedy decoding judges them. Ordinary
prompts are Alpaca's. Half a minute a run on one core.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cyclopts
import torch

from antibody.data.sources import load_refusals
from antibody.evaluation.measures import auroc, percent
from antibody.models.run import load_model, refusals_of

ORDINARY, ORDINARY_SKIPPED, LONGEST = 200, 1200, 200
BATCH = 32


class Prompts(NamedTuple):
    """Of each kind, as they are put."""

    harmful: list[str]
    safe: list[str]
    ordinary: list[str]


class Openings(NamedTuple):
    """How answers begin: how likely as a refusal, and whether that is likeliest. One entry a prompt."""

    mass: list[float]
    refused: list[bool]


def main(data: Path, runs: list[Path], /, *, half: Literal["dev", "test"] = "test") -> None:
    prompts = _prompts(data, half)
    print(f"{half} half: " + ", ".join(f"{len(rows)} {kind}" for kind, rows in prompts._asdict().items()))
    print("| run | AUROC | at 5% | at 10% | at 20% | greedy: harmful | safe | ordinary |\n| --- |" + " ---: |" * 7)
    for run in runs:
        loaded = load_model(run)
        refusals = load_refusals(refusals_of(run))
        first = sorted({loaded.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in refusals})
        harmful, safe, ordinary = (_openings(loaded.model, loaded.tokenizer, rows, first) for rows in prompts)
        labels = [True] * len(harmful.mass) + [False] * len(safe.mass)
        figures = [f"{auroc([*harmful.mass, *safe.mass], labels):.3f}"]
        for share in (0.05, 0.1, 0.2):
            threshold = sorted(safe.mass, reverse=True)[int(share * len(safe.mass))]
            figures.append(f"{percent(sum(mass > threshold for mass in harmful.mass), len(harmful.mass)):.0f}")
        figures += [f"{percent(sum(kind.refused), len(kind.refused)):.0f}" for kind in (harmful, safe, ordinary)]
        print(f"| {run.name} | " + " | ".join(figures) + " |", flush=True)


def _prompts(data: Path, half: str) -> Prompts:
    ordinary = [row["instruction"] for row in _rows(data / "alpaca_benign.jsonl")[ORDINARY_SKIPPED:][:ORDINARY]]
    return Prompts(
        harmful=[row["prompt"] for row in _rows(data / f"beavertails_eval_{half}.jsonl")],
        safe=[row["prompt"] for row in _rows(data / f"xstest_{half}.jsonl") if row["label"] == "safe"],
        ordinary=[text for text in ordinary if len(text) <= LONGEST],
    )


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def _openings(model: Any, tokenizer: Any, prompts: Sequence[str], first: list[int]) -> Openings:
    """Of a prompt's answer, the probability that its first token is one of `first`, and whether the likeliest is."""
    model.eval()
    tokenizer.padding_side = "left"
    mass, refused = [], []
    for start in range(0, len(prompts), BATCH):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + BATCH]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        hidden = model.get_base_model().model(**batch).last_hidden_state[:, -1].contiguous()
        probabilities = model.get_output_embeddings()(hidden).float().softmax(-1)
        mass += probabilities[:, first].sum(-1).tolist()
        refused += [token in first for token in probabilities.argmax(-1).tolist()]
    return Openings(mass, refused)


if __name__ == "__main__":
    cyclopts.run(main)
