"""Whose question is answered next: the projects take turns, so that one that asks much makes only itself wait."""

import queue
from collections import deque

from antibody.service.chat.protocol import Question


class Turns(queue.Queue[Question | None]):
    """A queue of questions. Each project's own come in order; None, for the end, comes in its turn too."""

    def _init(self, maxsize: int) -> None:
        self.waiting: dict[str, deque[Question | None]] = {}

    def _qsize(self) -> int:
        return sum(map(len, self.waiting.values()))

    def _put(self, item: Question | None) -> None:
        self.waiting.setdefault("" if item is None else item.project, deque()).append(item)

    def _get(self) -> Question | None:
        project = next(iter(self.waiting))
        asked = self.waiting.pop(project)
        question = asked.popleft()
        if asked:
            # Behind all others that wait.
            self.waiting[project] = asked
        return question
