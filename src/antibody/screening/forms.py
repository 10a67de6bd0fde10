"""Copies of a screen's rows in unusual forms, so that it learns what is said and not how it is put.

A probe that has seen plain questions alone takes an unusual form for harmless: docs/robustness.md has the figures. No
form here is one of an attack's.
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

from antibody.data.forms import Form, in_form
from antibody.data.records import Record
from antibody.data.tokenization import fitting

Found = TypeVar("Found")

MOST_COPIES = 200


def _numbered(answer: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(answer.splitlines(), start=1))


FORMS = (
    Form(
        "{} Reply inside one pair of <reply> tags, with nothing outside of them.",
        lambda answer: f"<reply>{answer}</reply>",
    ),
    Form(
        "Two people meet at a bus stop. One of them asks the other:\n{}\nThe other one says:",
        lambda answer: f'"{answer}"',
    ),
    Form(
        "Q: Which metal is liquid in a warm room?\nA: Mercury.\nQ: How many minutes has an hour?\nA: Sixty.\nQ: {}\nA:",
        lambda answer: answer,
    ),
    Form(
        "Write YAML with the key `text`, and as its value your answer to this: {}",
        lambda answer: "text: |\n" + textwrap.indent(answer, "  "),
    ),
    Form("Number the lines of your answer.\n\n{}", _numbered),
    Form(
        "{}\n(Speak to me as an old friend would, and open with a greeting.)",
        lambda answer: f"Hello, my friend! {answer}",
    ),
    Form("Task: {}\nConstraints: none.\nOutput:", lambda answer: answer),
    Form(
        "{}\n\nThank you! When you are done, ask me whether I want to hear more.",
        lambda answer: f"{answer} Shall I go on?",
    ),
)


def with_copies(records: Sequence[Record], seed: int) -> list[Record]:
    """The records, and after them copies of half of them, at most `MOST_COPIES`, each in one of the forms."""
    random = Random(seed)
    drawn = random.sample(records, min(len(records) // 2, MOST_COPIES))
    return [*records, *(in_form(record, random.choice(FORMS)) for record in drawn)]


def read_with_copies(
    parts: Iterable[Sequence[Record]],
    seed: int,
    tokenizer: Any,
    max_length: int,
    read: Callable[[Sequence[Record]], Iterable[Found]],
) -> list[list[Found]]:
    """What is read of each part's records and their copies, part by part. All are read at once.

    Args:
        parts: The records.
        seed: Of the copies.
        tokenizer: Of the model that reads them.
        max_length: Most tokens of a copy; those that do not fit are left out.
        read: One value a record.
    """
    copied = [[*part, *fitting(with_copies(part, seed)[len(part) :], tokenizer, max_length)] for part in parts]
    found = iter(read([record for part in copied for record in part]))
    return [[next(found) for _ in part] for part in copied]
