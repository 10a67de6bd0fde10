"""Write the embedded corpus from the hand-written lists in ``scripts/corpus``.

A row's wording follows from its position, and the order of the task's rows from a fixed seed, so that the same lists
give the same bytes.

    python scripts/build_corpus.py [--output DIRECTORY] [--check]
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

LISTS = Path(__file__).parent / "corpus"
EMBEDDED = Path(__file__).parents[1] / "src" / "antibody" / "data" / "embedded"
PARTS = ("train", "attack", "evaluation")
LABELS = ("positive", "negative")
INSTRUCTION = "Is this review positive or negative? Answer with one word.\nReview: "
TASK_PASSES = 3
TASK_BLOCK = 12
LONG_REFUSALS = 42

Row = dict[str, str]


def sections(name: str) -> dict[str, list[str]]:
    """The lines under each ``[heading]`` of a list; blank lines and ``#`` comments are left out."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (LISTS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            current.append(line)
    return found


def harmful(part: str) -> Iterator[Row]:
    """One row an act. Categories take turns, so that any prefix of the file covers them evenly."""
    acts, answers = sections("actions.txt"), sections("answers.txt")
    templates = sections("templates.txt")[part]
    openings, bodies = answers[f"{part} openings"], answers[f"{part} bodies"]
    topics = dict(line.split(" = ") for line in answers["topics"])
    by_category = [acts[f"{category} {part}"] for category in topics]
    for index, (category, action) in enumerate(
        (category, action)
        for turn in zip(*by_category, strict=True)
        for category, action in zip(topics, turn, strict=True)
    ):
        # A category must not meet the same few templates in every turn, so each turn starts one template further.
        template = (index + index // len(topics)) % len(templates)
        # The numbers of openings and bodies have no common divisor, so their pairs repeat only after their product.
        response = f"{openings[index % len(openings)]} {bodies[index % len(bodies)]}"
        yield {
            "id": f"harmful-{part}-{index + 1:03d}",
            "category": category,
            "action": action,
            "template": f"{part}-{template + 1:02d}",
            "prompt": templates[template].format(action=action),
            "response": response.format(action=action, topic=topics[category]),
        }


def refusals() -> Iterator[Row]:
    for text in sections("refusals.txt")["short"]:
        yield {"text": text}


def long_refusals() -> Iterator[Row]:
    lists = sections("refusals.txt")
    openings, reasons, alternatives = (lists[f"long {name}"] for name in ("openings", "reasons", "alternatives"))
    for index in range(LONG_REFUSALS):
        turn = index // len(openings)
        # Steps that have no common divisor with the list's length, so that no two sentences meet twice.
        reason = reasons[(3 * index + turn) % len(reasons)]
        alternative = alternatives[(5 * index + 3 * turn) % len(alternatives)]
        yield {"text": f"{openings[index % len(openings)]} {reason} {alternative}"}


def label_lines() -> list[str]:
    """The label tasks as lines of the benign list. Tasks take turns."""
    tasks = [
        [f"{instruction}\n{field} {line}" for line in lines]
        for instruction, field, *lines in sections("labels.txt").values()
    ]
    return [line for turn in zip(*tasks, strict=True) for line in turn]


def spread(groups: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    """Every group's lines at even distances, each with its group's name: any prefix holds all groups in proportion."""
    placed = sorted(
        ((position + 0.5) / len(lines), name, line) for name, lines in groups for position, line in enumerate(lines)
    )
    return [(name, line) for _, name, line in placed]


def benign() -> Iterator[Row]:
    """Kinds are spread evenly over the file, and the sorts of safe but alarming prompts over their kind."""
    by_kind: dict[str, list[tuple[str, list[str]]]] = {}
    for heading, lines in sections("benign.txt").items():
        by_kind.setdefault(heading.split()[0], []).append((heading, lines))
    groups = [(kind, [line for _, line in spread(sorts)]) for kind, sorts in by_kind.items()]
    # Label tasks are spread apart from the other label questions, so that neither comes before the other.
    for index, (kind, line) in enumerate(spread([*groups, ("label", label_lines())])):
        prompt, response = line.split(" => ")
        yield {"id": f"benign-{index + 1:03d}", "kind": kind, "prompt": prompt, "response": response}


def looks_unsafe() -> Iterator[Row]:
    """Sorts are spread evenly over the file."""
    for index, (_, line) in enumerate(spread(list(sections("looks_unsafe.txt").items()))):
        prompt, response = line.split(" => ")
        yield {"id": f"looks-unsafe-{index + 1:03d}", "kind": "looks_unsafe", "prompt": prompt, "response": response}


def task(part: str) -> Iterator[Row]:
    """Each pass over the reviews uses other products, the same for every label, so that they say nothing about it."""
    lists = sections("reviews.txt")
    products = lists[f"{part} products"]
    reviews = list(zip(*(lists[f"{part} {label}"] for label in LABELS), strict=True))
    rows = [
        (label, review.format(product=products[(position + shift * len(products) // TASK_PASSES) % len(products)]))
        for shift in range(TASK_PASSES)
        for position, turn in enumerate(reviews)
        for label, review in zip(LABELS, turn, strict=True)
    ]
    order = random.Random(0)
    index = 0
    # Shuffled in blocks: labels must not alternate, yet any prefix stays close to balanced.
    for start in range(0, len(rows), TASK_BLOCK):
        block = rows[start : start + TASK_BLOCK]
        order.shuffle(block)
        for label, review in block:
            index += 1
            yield {"id": f"task-{part}-{index:03d}", "prompt": INSTRUCTION + review, "response": label}


def corpus() -> dict[str, list[Row]]:
    """Rows by file name."""
    return {
        **{f"harmful_{part}.jsonl": list(harmful(part)) for part in PARTS},
        "refusals.jsonl": list(refusals()),
        "refusals_long.jsonl": list(long_refusals()),
        "benign.jsonl": list(benign()),
        "looks_unsafe.jsonl": list(looks_unsafe()),
        "task_train.jsonl": list(task("train")),
        "task_test.jsonl": list(task("test")),
    }


def encode(rows: list[Row]) -> bytes:
    """JSONL, one newline-terminated object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the embedded corpus from the lists in scripts/corpus.")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="folder for the JSONL files")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs from its lists")
    arguments = parser.parse_args()
    stale = []
    for name, rows in corpus().items():
        path, content = arguments.output / name, encode(rows)
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        elif not path.exists() or path.read_bytes() != content:
            stale.append(name)
        print(f"{name}: {len(rows)} rows")
    if stale:
        print(f"Out of date: {', '.join(stale)}. Run `python scripts/build_corpus.py`.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
