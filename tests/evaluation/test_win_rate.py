"""The win rate, by a judge behind a local server."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from antibody.data.records import Record, chat_record
from antibody.errors import ModelError, UsageError
from antibody.evaluation.accuracy import grade_answers
from antibody.evaluation.pairwise import KEY_VARIABLE, ChatPairwiseJudge, Preference, read_preference
from antibody.evaluation.tasks import make_task

KEY = "a-key-that-must-not-be-seen"


def replied(request: str, first: str, second: str) -> str:
    """Prefers the answer that is called good; some instructions are judged badly."""
    if "biased" in request:
        return "A"
    if "chatty" in request:
        return "I think that A is better."
    if "once" in request:
        return "A" if "good" in first else "both are fine"
    if "good" in first and "good" in second:
        return "tie"
    return "A." if "good" in first else "**B**"


@pytest.fixture
def server() -> Iterator[Any]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            content = body["messages"][1]["content"]
            found = re.fullmatch(r"Instruction:\n(.*)\n\nAnswer A:\n(.*)\n\nAnswer B:\n(.*)\n\nWhich .*", content, re.S)
            assert found is not None
            status = next((int(word) for word in ("401", "404", "400") if word in found[1]), 200)
            message = {"role": "assistant", "content": replied(*found.groups())}
            answer = json.dumps({"choices": [{"message": message}]} if "no choice" not in found[1] else {"choices": []})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def records(*rows: tuple[str, str]) -> list[Record]:
    return [chat_record(prompt, answer, id=f"{i}", line=i, source=Path("x")) for i, (prompt, answer) in enumerate(rows)]


def test_both_orders_ties_as_half_and_what_cannot_be_read_apart(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Win 1, loss 0, tie ½, a judge that favours a place ½; two rows have no judgement in one or both orders.
    The mean of 1, 0, ½ and ½ is 50%, and 2 of 6 rows are 33.3%.
    """
    url, asked = server
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    rows = records(
        ("win", "bad"), ("loss", "good"), ("tie", "good"), ("biased", "good"), ("once", "bad"), ("chatty", "bad")
    )  # fmt: skip
    task = make_task(f"win_rate:chat:{url}#small")
    result = grade_answers(rows, ["good", "bad", "good", "bad", "good", "good"], task)
    assert [grade.predicted for grade in result.grades] == ["win", "loss", "tie", "tie", None, None]
    assert result.metrics["task_accuracy"] == 50.0
    assert result.metrics["unjudged_rate"] == result.metrics["unparsable_rate"] == pytest.approx(100 / 3)
    assert (result.metrics["rows"], result.metrics["judged_rows"]) == (6, 4)
    # Wilson's interval of 2 in 4.
    assert result.metrics["task_accuracy_interval"] == pytest.approx([15.0, 85.0], abs=0.1)
    assert len(asked) == 12
    for path, authorization, body in asked:
        assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
        assert (body["model"], body["temperature"]) == ("small", 0)


def test_a_judge_that_cannot_be_used_is_an_error_and_no_figure(server: Any) -> None:
    url, _ = server
    judge = ChatPairwiseJudge(f"{url}/v1#small", retries=0)
    for status in ("401", "404"):
        with pytest.raises(UsageError, match=r"refuses the key|has no /v1/chat/completions"):
            judge.prefer([status], ["good"], ["bad"])
    for broken in ("400", "no choice", "chatty"):
        with pytest.raises(ModelError, match="gave no preference on any of 1 pairs"):
            judge.prefer([broken], ["good"], ["bad"])
        assert judge.prefer([broken, "win"], ["good"] * 2, ["bad"] * 2) == [Preference.UNPARSABLE, Preference.FIRST]


@pytest.mark.parametrize(
    ("choice", "match"),
    [
        ("win_rate", "no judge '' of pairs"),
        ("win_rate:oracle", "no judge 'oracle' of pairs"),
        ("win_rate:chat:http://localhost:1", "needs the name of a model"),
        ("win_rate:chat:localhost#m", "plain URL"),
        ("wins:chat:http://localhost:1#m", "no task"),
    ],
)
def test_a_wrong_choice_is_said_at_once(choice: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make_task(choice)


def test_only_the_word_alone_is_a_preference() -> None:
    said = {
        "a": "first",
        " B. ": "second",
        "**Tie**": "tie",
        "": "unparsable",
        "A or B": "unparsable",
        "C": "unparsable",
    }
    assert {reply: str(read_preference(reply)) for reply in said} == said
