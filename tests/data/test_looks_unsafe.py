"""More safe prompts that look unsafe: varied, answered helpfully, and apart from every other row of the corpus."""

import re
from collections import Counter, defaultdict
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from antibody.data import corpus
from antibody.data.records import Record
from antibody.data.sources import load_records
from antibody.evaluation.judges.embedded import EmbeddedJudge
from antibody.evaluation.judges.judge import Verdict

LIST = Path(__file__).parents[2] / "scripts" / "corpus" / "looks_unsafe.txt"
PARTS: tuple[corpus.HarmfulPart, ...] = ("train", "attack", "evaluation")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return corpus.looks_unsafe()


@pytest.fixture(scope="module")
def sorts(records: list[Record]) -> list[str]:
    """The sort of each row in the order of the file, read apart from the generator's own reader."""
    by_prompt = {}
    for section in LIST.read_text(encoding="utf-8").split("\n[")[1:]:
        heading, *lines = section.splitlines()
        by_prompt.update({line.split(" => ")[0]: heading.strip("]") for line in lines if line})
    return [by_prompt[record.request] for record in records]


def overlaps(ones: list[str], others: list[str]) -> torch.Tensor:
    """Shared words over all words of every pair of texts, (ones, others)."""
    numbers: dict[str, int] = defaultdict(lambda: len(numbers))
    bags = [
        [{numbers[word] for word in re.findall(r"\w+", text.lower())} for text in texts] for texts in (ones, others)
    ]
    first, second = (torch.zeros(len(sets), len(numbers)) for sets in bags)
    for matrix, sets in zip((first, second), bags, strict=True):
        for row, words in zip(matrix, sets, strict=True):
            row[list(words)] = 1
    shared = first @ second.T
    return shared / (first.sum(1, keepdim=True) + second.sum(1) - shared)


def closest_to_others(ones: list[str], others: list[str]) -> float:
    return overlaps(ones, others).max().item()


def closest_to_each_other(texts: list[str]) -> float:
    return overlaps(texts, texts).fill_diagonal_(0).max().item()


def length(text: str) -> int:
    return len(text.split())


def test_rows_are_reached_by_name(records: list[Record]) -> None:
    loaded = load_records("embedded:looks_unsafe").records
    assert loaded == records
    assert len(records) >= 600
    assert {record.category for record in records} == {"looks_unsafe"}
    assert not any(record.harmful for record in records)


def test_sorts_are_of_similar_size_and_take_turns(sorts: list[str]) -> None:
    """In any prefix, each sort is fewer than two rows away from its share."""
    shares = {sort: count / len(sorts) for sort, count in Counter(sorts).items()}
    assert len(shares) >= 13
    assert min(shares.values()) > 0.05
    assert max(shares.values()) < 0.1
    prefixes = accumulate(sorts, lambda seen, sort: seen + Counter([sort]), initial=Counter[str]())
    for size, seen in enumerate(prefixes):
        assert all(abs(seen[sort] - size * share) < 2 for sort, share in shares.items())


def test_prompts_are_short_and_asked_in_many_ways(records: list[Record]) -> None:
    assert all(3 <= length(record.request) <= 22 for record in records)
    openings = Counter(" ".join(record.request.split()[:2]) for record in records)
    assert len(openings) >= 180
    assert max(openings.values()) < len(records) / 5
    for form in (
        "How do I ",
        "What's the best way ",
        "Can you ",
        "I want to ",
        "Where ",
        "Why ",
        "Tell me ",
        "Should ",
    ):
        assert sum(record.request.startswith(form) for record in records) >= 8, form


def test_no_row_nearly_repeats_another(records: list[Record]) -> None:
    assert closest_to_each_other([record.request for record in records]) < 0.6
    assert closest_to_each_other([record.response for record in records]) < 0.5


def test_rows_are_apart_from_the_other_rows(records: list[Record]) -> None:
    requests = [record.request for record in records]
    others = [record.request for record in corpus.benign()]
    harmful = [record.request for part in PARTS for record in corpus.harmful(part)]
    assert closest_to_others(requests, others) < 0.6
    assert closest_to_others(requests, harmful) < 0.6
    alarming = [record.response for record in corpus.benign() if record.category == "looks_unsafe"]
    assert closest_to_others([record.response for record in records], alarming) < 0.5


def test_answers_help_in_many_ways(records: list[Record]) -> None:
    verdicts = EmbeddedJudge().judge([record.request for record in records], [record.response for record in records])
    refused = [record.id for record, (verdict, _) in zip(records, verdicts, strict=True) if verdict is Verdict.REFUSED]
    assert refused == []
    assert [record.id for record in records if not 15 <= length(record.response) <= 45] == []
    openings = Counter(record.response.split()[0].strip(",:;") for record in records)
    assert not openings.keys() & {"Sure", "Absolutely", "Sorry", "Unfortunately"}
    assert max(openings.values()) <= len(records) / 15
