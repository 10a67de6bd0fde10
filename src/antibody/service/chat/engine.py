"""The answering process. `python -m antibody.service.chat.engine DTYPE DEVICE` reads questions and writes replies.

It answers one question after the other, the projects in turn, and ends when its standard input does.
"""

import json
import logging
import os
import signal
import sys
import threading
from typing import TextIO

from antibody.errors import AntibodyError
from antibody.quiet import log_as_a_service, quieten_libraries
from antibody.service.chat.generation import UnanswerableError, answer
from antibody.service.chat.models import Models
from antibody.service.chat.protocol import Question, Reply, read_question, to_line
from antibody.service.chat.turns import Turns

logger = logging.getLogger(__name__)


def main(dtype: str, device: str) -> None:
    quieten_libraries()
    log_as_a_service()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not end up among the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    questions = Turns()
    cancelled: set[str] = set()
    threading.Thread(target=_listen, args=(questions, cancelled), daemon=True).start()
    models = Models(dtype, device)
    while (question := questions.get()) is not None:
        if question.id not in cancelled:
            _reply(models, question, replies, cancelled)
        cancelled.discard(question.id)


def _listen(questions: Turns, cancelled: set[str]) -> None:
    for line in sys.stdin:
        content = json.loads(line)
        if "cancel" in content:
            cancelled.add(content["cancel"])
        else:
            questions.put(read_question(content))
    questions.put(None)


def _reply(models: Models, question: Question, replies: TextIO, cancelled: set[str]) -> None:
    def send(reply: Reply) -> None:
        replies.write(to_line(reply))
        replies.flush()

    try:
        loaded = models.ready(question.run)
        send(
            answer(loaded, question, lambda text: send(Reply(question.id, text=text)), lambda: question.id in cancelled)
        )
    except UnanswerableError as error:
        send(Reply(question.id, error=str(error), error_code=error.code))
    except AntibodyError as error:
        logger.error("A model cannot be used: %s", error)  # noqa: TRY400 - the reason is in the message
        send(Reply(question.id, error="The model cannot be used now.", error_code="model_unavailable"))
    except Exception as error:  # noqa: BLE001 - one question's error must not end the others'
        # Its message may hold content.
        logger.error("An answer failed: %s", type(error).__name__)  # noqa: TRY400
        send(Reply(question.id, error="The model cannot be used now.", error_code="model_unavailable"))


if __name__ == "__main__":
    main(*sys.argv[1:])
