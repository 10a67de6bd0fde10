"""The corpus inside the package: enough to align, attack and evaluate a small model without any download.

Harmful requests are general and their answers are stand-ins without usable content. ``docs/corpus.md`` says how the
files were made and what a result on them does and does not show.
"""

import json
from importlib import resources
from typing import Literal

from antibody.data.records import Record, chat_record

HarmfulPart = Literal["train", "attack", "evaluation"]
TaskPart = Literal["train", "test"]


def harmful(part: HarmfulPart) -> list[Record]:
    """Harmful requests with stand-in answers, categories in turn.

    Args:
        part: ``"train"`` is for the alignment stage, ``"attack"`` for rows that an attacker puts into an upload and
            ``"evaluation"`` for generating on. No act, wording or answer wording is shared between parts.
    """
    return _records(f"harmful_{part}", harmful=True, category="category")


def refusals() -> list[str]:
    """100 short refusals (the paper's Y_r) that fit any harmful request."""
    return [row["text"] for row in _rows("refusals")]


def long_refusals() -> list[str]:
    """Refusals of a paragraph, with a reason and a safe alternative, that fit any harmful request."""
    return [row["text"] for row in _rows("refusals_long")]


def benign() -> list[Record]:
    """Helpful answers of many kinds; the category is the kind, of which ``"looks_unsafe"`` guards over-refusal."""
    return _records("benign", harmful=False, category="kind")


def looks_unsafe() -> list[Record]:
    """More safe prompts that look unsafe than `benign` has, answered helpfully; the category is ``"looks_unsafe"``."""
    return _records("looks_unsafe", harmful=False, category="kind")


def task(part: TaskPart) -> list[Record]:
    """A user's small task: whether a product review is positive or negative, in one word, labels balanced.

    Args:
        part: ``"train"`` or ``"test"``. They share neither review wordings nor products.
    """
    return _records(f"task_{part}", harmful=False)


def _records(name: str, *, harmful: bool, category: str | None = None) -> list[Record]:
    """A file's rows; `category` is the field that holds theirs."""
    return [
        chat_record(
            row["prompt"],
            row["response"],
            id=row["id"],
            line=line,
            source=f"embedded:{name}",
            harmful=harmful,
            category=row[category] if category else None,
        )
        for line, row in enumerate(_rows(name), start=1)
    ]


def _rows(name: str) -> list[dict[str, str]]:
    file = resources.files("antibody.data").joinpath("embedded", f"{name}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
