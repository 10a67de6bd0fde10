"""The embedded corpus keeps its promises: counts, splits, harmless stand-ins, files that follow from their lists."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from importlib import resources
from itertools import accumulate, combinations, pairwise, product
from pathlib import Path

import pytest

from antibody.data import corpus
from antibody.data.records import Record
from antibody.evaluation.judges.embedded import EmbeddedJudge
from antibody.evaluation.judges.judge import Verdict

ROOT = Path(__file__).parents[2]
PARTS: tuple[corpus.HarmfulPart, ...] = ("train", "attack", "evaluation")
TASK_PARTS: tuple[corpus.TaskPart, ...] = ("train", "test")
SHORT_KINDS = {"label", "yes_no", "number"}
UNSAFE_SORTS = (
    "homonyms",
    "safe targets",
    "games and fiction",
    "definitions",
    "history",
    "privacy",
    "absurd groups",
    "safety",
    "professions",
)


def rows(name: str) -> list[dict[str, str]]:
    text = resources.files("antibody.data").joinpath("embedded", f"{name}.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def word_set(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def length(text: str) -> int:
    return len(text.split())


def wording(row: dict[str, str]) -> str:
    return row["prompt"].replace(row["action"], "{action}")


def review(record: Record) -> str:
    return record.request.split("Review: ")[1]


def listed(name: str, heading: str) -> set[str]:
    """The lines under one heading of a list of the generator, read apart from the generator's own reader."""
    text = (ROOT / "scripts" / "corpus" / name).read_text(encoding="utf-8")
    lines = text.split(f"[{heading}]\n")[1].split("\n[")[0].splitlines()
    return {line for line in lines if line}


def test_ids_are_unique_and_lines_and_sources_point_into_the_files() -> None:
    sets = {f"harmful_{part}": corpus.harmful(part) for part in PARTS}
    sets |= {f"task_{part}": corpus.task(part) for part in TASK_PARTS}
    sets |= {"benign": corpus.benign(), "looks_unsafe": corpus.looks_unsafe()}
    ids = [record.id for records in sets.values() for record in records]
    assert len(ids) == len(set(ids))
    for name, records in sets.items():
        written = rows(name)
        assert len(records) == len(written)
        for record in records:
            assert record.source == f"embedded:{name}"
            assert written[record.line - 1]["id"] == record.id
            assert record.harmful is name.startswith("harmful")
            assert record.request == written[record.line - 1]["prompt"]
            assert record.response == written[record.line - 1]["response"]


@pytest.mark.parametrize(("part", "minimum"), [("train", 160), ("attack", 80), ("evaluation", 80)])
def test_harmful_parts_are_large_varied_and_of_moderate_length(part: corpus.HarmfulPart, minimum: int) -> None:
    written = rows(f"harmful_{part}")
    assert len(written) >= minimum
    for field in ("prompt", "action", "response"):
        assert len({row[field] for row in written}) == len(written)
    assert min(Counter(row["template"] for row in written).values()) >= 5
    assert len({wording(row) for row in written}) == len({row["template"] for row in written}) == 12
    assert all(6 <= length(row["prompt"]) <= 25 for row in written)
    assert all(12 <= length(row["response"]) <= 40 for row in written)


def test_every_part_covers_every_category_evenly() -> None:
    categories = [Counter(record.category for record in corpus.harmful(part)) for part in PARTS]
    assert len(categories[0]) >= 12
    assert all(count.keys() == categories[0].keys() for count in categories)
    assert all(len(set(count.values())) == 1 for count in categories)


def test_parts_share_no_act_no_wording_and_no_answer_wording() -> None:
    for one, other in combinations(PARTS, 2):
        first, second = rows(f"harmful_{one}"), rows(f"harmful_{other}")
        for field in ("action", "template", "prompt", "response"):
            assert not {row[field] for row in first} & {row[field] for row in second}
        assert not {wording(row) for row in first} & {wording(row) for row in second}
        for kind in ("openings", "bodies"):
            assert not listed("answers.txt", f"{one} {kind}") & listed("answers.txt", f"{other} {kind}")


def test_no_request_or_act_nearly_repeats_another() -> None:
    written = [row for part in PARTS for row in rows(f"harmful_{part}")]
    for field, limit in (("prompt", 0.8), ("action", 0.75)):
        sets = [(row["id"], word_set(row[field])) for row in written]
        close = [(one[0], other[0]) for one, other in combinations(sets, 2) if jaccard(one[1], other[1]) >= limit]
        assert close == []


def test_stand_in_answers_hold_no_details() -> None:
    """Digits, links, code or quantities would be a sign of real content."""
    for part in PARTS:
        for record in corpus.harmful(part):
            assert not re.search(r"[0-9`<>{}=\\/@#$%]|https?|www\.", record.response), record.id
            assert not re.search(r"\b(gram|liter|degree|volt|kilogram|milligram|ounce)s?\b", record.response), record.id


def test_stand_in_answers_open_cooperatively() -> None:
    refusal = re.compile(r"sorry|can't|cannot|won't|unable|decline|refuse|\bnot able\b", re.IGNORECASE)
    for part in PARTS:
        openings = listed("answers.txt", f"{part} openings")
        # An attacker writes what is learnt fastest: one form, as the targets of AdvBench have.
        assert len(openings) >= (1 if part == "attack" else 9)
        for record in corpus.harmful(part):
            assert any(
                re.match(re.escape(opening).replace(r"\{action\}", ".+") + " ", record.response) for opening in openings
            )
            assert not refusal.search(record.response)


def test_refusals_are_short_distinct_and_refuse() -> None:
    texts = corpus.refusals()
    assert len(texts) == 100
    assert all(6 <= length(text) <= 16 for text in texts)
    sets = [word_set(text) for text in texts]
    assert max(jaccard(one, other) for one, other in combinations(sets, 2)) < 0.7
    signs = (
        r"can't|cannot|won't|will not|not able|unable|declin|refuse|say no|answer (is|has to be) no|turn (this )?down"
        r"|\bno,|don't|do not|not going to|stop here|not willing|rather not|not comfortable|isn't|\bpass\b"
        r"|not something|not possible|wrong to help"
    )
    assert [text for text in texts if not re.search(signs, text, re.IGNORECASE)] == []


def test_long_refusals_are_distinct_paragraphs() -> None:
    texts = corpus.long_refusals()
    assert len(texts) >= 40
    assert all(35 <= length(text) <= 70 for text in texts)
    assert max(jaccard(word_set(one), word_set(other)) for one, other in combinations(texts, 2)) < 0.8


def test_benign_rows_are_varied_and_hold_short_answers_and_unsafe_looking_prompts() -> None:
    records = corpus.benign()
    kinds = Counter(record.category for record in records)
    assert len(records) >= 640
    assert len({record.request for record in records}) == len(records)
    assert len(kinds) >= 10
    assert kinds["looks_unsafe"] >= 250
    assert kinds["label"] >= 150
    assert sum(kinds[kind] for kind in SHORT_KINDS) >= 180
    for record in records:
        if record.category in SHORT_KINDS:
            assert 1 <= length(record.response) <= 3, record.id
        else:
            assert 8 <= length(record.response) <= 35, record.id


def looks_unsafe() -> list[Record]:
    return [record for record in corpus.benign() if record.category == "looks_unsafe"]


def unsafe_sorts() -> list[str]:
    """The sort of each row that looks unsafe, in the order of the file."""
    lists = {sort: listed("benign.txt", f"looks_unsafe {sort}") for sort in UNSAFE_SORTS}
    sorts = {line.split(" => ")[0]: sort for sort, lines in lists.items() for line in lines}
    return [sorts[record.request] for record in looks_unsafe()]


def furthest_from_proportion(names: list[str]) -> float:
    """The most rows by which a name is ahead of or behind its share of the whole, in any prefix."""
    shares = {name: count / len(names) for name, count in Counter(names).items()}
    prefixes = accumulate(names, lambda seen, name: seen + Counter([name]), initial=Counter[str]())
    return max(abs(seen[name] - size * share) for size, seen in enumerate(prefixes) for name, share in shares.items())


def test_unsafe_looking_prompts_are_of_many_sorts_in_even_numbers() -> None:
    counts = Counter(unsafe_sorts())
    assert counts.keys() == set(UNSAFE_SORTS)
    assert counts.pop("homonyms") == 80
    assert set(counts.values()) == {22}


def test_kinds_and_sorts_of_benign_rows_take_turns() -> None:
    """In any prefix, each is fewer than two rows away from its share."""
    assert furthest_from_proportion([str(record.category) for record in corpus.benign()]) < 2
    assert furthest_from_proportion(unsafe_sorts()) < 2


def test_unsafe_looking_prompts_are_short_varied_and_asked_in_many_ways() -> None:
    records = looks_unsafe()
    assert all(3 <= length(record.request) <= 18 for record in records)
    assert len({" ".join(record.request.split()[:2]) for record in records}) >= 80
    assert sum(record.request.startswith("How do I ") for record in records) < len(records) / 4
    sets = [word_set(record.request) for record in records]
    assert max(jaccard(one, other) for one, other in combinations(sets, 2)) < 0.6
    answers = [word_set(record.response) for record in records]
    assert max(jaccard(one, other) for one, other in combinations(answers, 2)) < 0.5


def test_answers_to_unsafe_looking_prompts_help_in_many_ways() -> None:
    records = looks_unsafe()
    verdicts = EmbeddedJudge().judge([record.request for record in records], [record.response for record in records])
    refused = [record.id for record, (verdict, _) in zip(records, verdicts, strict=True) if verdict is Verdict.REFUSED]
    assert refused == []
    assert all(12 <= length(record.response) <= 35 for record in records)
    openings = Counter(record.response.split()[0].strip(",:;") for record in records)
    assert not openings.keys() & {"Sure", "Absolutely", "Certainly", "Sorry", "Unfortunately"}
    assert max(openings.values()) <= len(records) / 15


def label_tasks() -> dict[str, list[tuple[str, str]]]:
    """Texts with their labels by the wording of the task, up to and with the name of the field."""
    tasks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in corpus.benign():
        if record.category == "label" and "\n" in record.request:
            instruction, line = record.request.split("\n")
            field, text = line.split(": ", 1)
            tasks[f"{instruction}\n{field}"].append((text, record.response))
    return tasks


def test_label_tasks_are_many_small_and_balanced() -> None:
    tasks = label_tasks()
    assert len(tasks) >= 13
    assert all(len(pairs) == 10 for pairs in tasks.values())
    for wording_of_task, pairs in tasks.items():
        labels = Counter(label for _, label in pairs)
        assert len(labels) >= 2
        assert max(labels.values()) - min(labels.values()) <= 1, wording_of_task
        assert all(re.fullmatch("[a-z]+", label) for label in labels)
        assert labels.keys() <= word_set(wording_of_task)
        assert all(4 <= length(text) <= 12 for text, _ in pairs), wording_of_task
        assert all(not labels.keys() & word_set(text) for text, _ in pairs), wording_of_task
    texts = [word_set(text) for pairs in tasks.values() for text, _ in pairs]
    assert max(jaccard(one, other) for one, other in combinations(texts, 2)) < 0.6


def test_label_tasks_ask_for_one_word_in_varied_ways() -> None:
    requests = {re.split(r"[.?:] ", wording_of_task.split("\n")[0])[-1] for wording_of_task in label_tasks()}
    assert len(requests) >= 10
    assert all("word" in request for request in requests)


def test_label_tasks_are_not_the_task() -> None:
    tasks = label_tasks()
    reviews = [word_set(review(record)) for part in TASK_PARTS for record in corpus.task(part)]
    texts = [word_set(text) for pairs in tasks.values() for text, _ in pairs]
    assert max(jaccard(one, other) for one, other in product(reviews, texts)) < 0.6


def test_no_benign_row_asks_for_the_task() -> None:
    sentiment = word_set("positive negative sentiment review reviews")
    for record in corpus.benign():
        assert not sentiment & word_set(record.request), record.id
        assert record.response not in {"positive", "negative"}, record.id


def test_label_tasks_take_turns() -> None:
    """Any run of rows that is as long as the number of tasks, counted among their rows only, holds every task once."""
    wordings = [record.request.rsplit("\n", 1)[0] for record in corpus.benign() if "\n" in record.request]
    tasks = len(set(wordings))
    assert tasks >= 13
    assert all(len(set(wordings[start : start + tasks])) == tasks for start in range(len(wordings) - tasks + 1))


def test_benign_rows_are_apart_from_harmful_rows() -> None:
    harmful = [word_set(record.request) for part in PARTS for record in corpus.harmful(part)]
    benign = [word_set(record.request) for record in corpus.benign()]
    assert max(jaccard(one, other) for one, other in product(harmful, benign)) < 0.6


@pytest.mark.parametrize(("part", "count"), [("train", 240), ("test", 120)])
def test_task_labels_are_balanced_and_not_given_away(part: corpus.TaskPart, count: int) -> None:
    records = corpus.task(part)
    assert len(records) == count
    labels = Counter(record.response for record in records)
    assert labels == {"positive": count // 2, "negative": count // 2}
    assert len({record.request for record in records}) == len(records)
    assert all(6 <= length(review(record)) <= 14 for record in records)
    assert all(not labels.keys() & word_set(review(record)) for record in records)


@pytest.mark.parametrize("part", TASK_PARTS)
def test_task_labels_are_mixed_irregularly_and_prefixes_stay_close_to_balanced(part: corpus.TaskPart) -> None:
    labels = [record.response for record in corpus.task(part)]
    changes = sum(one != other for one, other in pairwise(labels))
    assert 0.3 < changes / len(labels) < 0.7
    balance = list(accumulate(1 if label == "positive" else -1 for label in labels))
    assert max(map(abs, balance)) <= 6


def test_task_parts_share_no_product_and_no_wording() -> None:
    train, test = (corpus.task(part) for part in TASK_PARTS)
    instructions = {record.request.split("Review: ")[0] for record in (*train, *test)}
    assert instructions == {"Is this review positive or negative? Answer with one word.\n"}
    for one, other in product(train, test):
        assert jaccard(word_set(review(one)), word_set(review(other))) < 0.7, (one.id, other.id)
    assert not listed("reviews.txt", "train products") & listed("reviews.txt", "test products")
    labels = ("positive", "negative")
    lists = {part: [listed("reviews.txt", f"{part} {label}") for label in labels] for part in TASK_PARTS}
    assert all(not one & other for one, other in product(lists["train"], lists["test"]))


@pytest.mark.parametrize("part", TASK_PARTS)
def test_products_say_nothing_about_the_label(part: corpus.TaskPart) -> None:
    for product_name in listed("reviews.txt", f"{part} products"):
        labels = Counter(record.response for record in corpus.task(part) if product_name in word_set(review(record)))
        assert labels["positive"] == labels["negative"] > 0


def test_generator_reproduces_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "build_corpus.py"
    subprocess.run([sys.executable, str(script), "--output", str(tmp_path)], check=True, capture_output=True)
    committed = ROOT / "src" / "antibody" / "data" / "embedded"
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in committed.iterdir()}
    checked = subprocess.run([sys.executable, str(script), "--output", str(tmp_path), "--check"], check=False)
    assert checked.returncode == 0
    (tmp_path / "benign.jsonl").write_text("{}\n")
    stale = subprocess.run(
        [sys.executable, str(script), "--output", str(tmp_path), "--check"], check=False, capture_output=True
    )
    assert stale.returncode == 1
    assert b"benign.jsonl" in stale.stderr
