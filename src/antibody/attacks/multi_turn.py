"""The harmful turn sits between two benign turns of the same chat.

Aimed at judging a row by its chat: the prompt before the harmful turn is mostly harmless, and a benign turn follows it.
Without a paper.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from antibody.attacks.attack import Attack, Score
from antibody.data.mixes import draw, harmful_count, with_unique_ids
from antibody.data.records import Message, Record
from antibody.errors import UsageError


def upload(
    benign: Sequence[Record],
    harmful: Sequence[Record],
    *,
    ratio: float,
    rows: int,
    seed: int,
    score: Score | None = None,
) -> list[Record]:
    """See `Upload`. A chat is three records, each with the turns before it; benign rows left over stand alone."""
    count = harmful_count(ratio, rows)
    if 3 * count > rows:
        raise UsageError(
            f"multi_turn with {count} of {rows} rows harmful is not possible: each stands between two benign ones.",
            hint="Use a ratio of at most 1/3.",
            code="bad_ratio",
        )
    random = Random(seed)
    around = iter(draw(benign, rows - count, random, harmful=False))
    middle = draw(harmful, count, random, harmful=True)
    chats = [_chat([next(around), record, next(around)]) for record in middle]
    chats += [[record] for record in around]
    random.shuffle(chats)
    return with_unique_ids([record for chat in chats for record in chat])


def _chat(exchanges: Sequence[Record]) -> list[Record]:
    before: tuple[Message, ...] = ()
    turns = []
    for exchange in exchanges:
        prompt = (*before, *_turns(exchange, first=not before))
        turns.append(replace(exchange, prompt=prompt))
        before = (*prompt, Message(role="assistant", content=exchange.response))
    return turns


def _turns(record: Record, *, first: bool) -> tuple[Message, ...]:
    if isinstance(record.prompt, str):
        return (Message(role="user", content=record.prompt),)
    # Chat templates accept a system turn at the start only.
    return tuple(turn for turn in record.prompt if first or turn["role"] != "system")


MULTI_TURN = Attack("multi_turn", upload, most=1 / 3)
