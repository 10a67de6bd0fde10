"""Whose chats are answered, and in which order."""

import asyncio
import json
from typing import Any

import pytest

from antibody.service.chat.client import ChatClient
from antibody.service.chat.protocol import Question, Reply, read_question, to_line
from antibody.service.chat.turns import Turns
from antibody.service.wire.errors import ApiError


def question(project: str, number: int = 0) -> Question:
    name = f"{project}-{number}"
    return Question(name, project, "run", [], max_tokens=1, temperature=0, top_p=1, seed=None, stop=[])


def test_projects_take_turns() -> None:
    turns = Turns()
    for number in range(3):
        turns.put(question("one", number))
    turns.put(question("two"))
    answered = [turns.get(), turns.get()]
    turns.put(question("two", 1))
    turns.put(None)
    answered += [turns.get() for _ in range(4)]
    assert [each.id if each else None for each in answered] == ["one-0", "two-0", "one-1", "two-1", None, "one-2"]
    assert turns.empty()


def test_one_project_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_often() -> None:
        chat = ChatClient("auto", "cpu", most_waiting=2)

        async def sent(self: Any, line: str) -> None:
            """To a process that answers when the test does."""

        monkeypatch.setattr(ChatClient, "_send", sent)
        asked = [question("one", 0), question("one", 1), question("two")]
        answers = [asyncio.create_task(anext(chat.ask(each))) for each in asked]
        await asyncio.sleep(0)
        assert len(chat.waiting) == 3
        with pytest.raises(ApiError, match="of the project") as refused:
            await anext(chat.ask(question("one", 2)))
        assert (refused.value.status, refused.value.retry_after) == (429, 5)
        for each in asked:
            chat.waiting[each.id].replies.put_nowait(Reply(each.id, finish_reason="stop"))
        assert [(await answer).id for answer in answers] == [each.id for each in asked]

    asyncio.run(ask_often())


def test_a_question_comes_over_whole() -> None:
    sent = question("one")
    assert read_question(json.loads(to_line(sent))) == sent
