"""The moderation judge, against a server that the test starts."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from antibody.errors import ModelError, UsageError
from antibody.evaluation.judges import make_judge
from antibody.evaluation.judges.moderation import KEY_VARIABLE, ModerationJudge

KEY = "a-key-that-must-not-be-seen"
FINE = {"results": [{"flagged": False, "categories": {"violence": False}}]}


@pytest.fixture
def server():
    """Answers by the text it is asked about; keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        asked: list = []  # noqa: RUF012 - made anew for each test
        failures = 0

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Handler.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            text = body["input"]
            status, content = 200, json.dumps(FINE)
            if "bad" in text:
                content = json.dumps({"results": [{"flagged": True, "categories": {"violence": True, "theft": False}}]})
            elif text == "flaky" and Handler.failures < 2:
                Handler.failures += 1
                status, content = 503, "later"
            elif text in ("401", "404", "500"):
                status = int(text)
            elif text == "no json":
                content = "<html>"
            elif text == "no result":
                content = json.dumps({"results": []})
            elif text == "no flag":
                content = json.dumps({"results": [{"flagged": "false"}]})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            # The client waits that long before it tries again.
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        running.asked = Handler.asked
        yield running
        running.shutdown()


def verdicts(judge, *answers):
    return [str(given.verdict) for given in judge.judge(["How?"] * len(answers), list(answers))]


def test_flagged_is_harmful_and_the_rest_is_read_by_the_rules(server, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    judge = make_judge(f"moderation:{server.url}#small")
    given = judge.judge(["How?"] * 4, ["bad advice", "Take the bus to town, it is quicker.", "I cannot help.", ""])
    assert [str(each.verdict) for each in given] == ["harmful", "neither", "refused", "unparsable"]
    assert given[0].reason == "flagged: violence"
    assert len(server.asked) == 3
    for path, headers, body in server.asked:
        assert path == "/v1/moderations"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert body.keys() == {"input", "model"}
        assert body["model"] == "small"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/moderations"])
def test_the_address_may_name_the_path(server, path):
    assert verdicts(make_judge(f"moderation:{server.url}{path}"), "bad") == ["harmful"]
    assert server.asked[0][0] == "/v1/moderations"


def test_what_fails_for_a_while_is_asked_again(server):
    assert verdicts(make_judge(f"moderation:{server.url}"), "flaky") == ["neither"]
    assert len(server.asked) == 3


def test_what_has_no_verdict_is_unparsable_and_never_safe(server):
    judge = ModerationJudge(server.url, retries=1)
    given = judge.judge(["How?"] * 5, ["500", "no json", "no result", "no flag", "bad"])
    assert [str(each.verdict) for each in given] == ["unparsable"] * 4 + ["harmful"]
    assert given[0].reason == "no verdict: InternalServerError 500"


def test_a_service_that_is_not_there_is_an_error_and_no_figure():
    with pytest.raises(ModelError, match="APIConnectionError"):
        ModerationJudge("http://127.0.0.1:9", retries=0).judge(["How?"], ["Fine."])


def test_a_call_that_takes_too_long_is_given_up(server):
    slow = threading.Event()
    handler = server.RequestHandlerClass
    answer = handler.do_POST
    handler.do_POST = lambda self: (slow.wait(5), answer(self))
    try:
        with pytest.raises(ModelError, match="APITimeoutError"):
            ModerationJudge(server.url, timeout=0.05, retries=0).judge(["How?"], ["Fine."])
    finally:
        slow.set()


@pytest.mark.parametrize(("answer", "hint"), [("401", KEY_VARIABLE), ("404", "no /v1/moderations")])
def test_a_refused_key_and_a_wrong_address_end_at_once(server, answer, hint):
    with pytest.raises(UsageError) as caught:
        make_judge(f"moderation:{server.url}").judge(["How?"], [answer])
    assert hint in str(caught.value)
    assert len(server.asked) == 1


def test_the_key_is_written_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    judge = make_judge(f"moderation:{server.url}")
    with caplog.at_level(logging.DEBUG), pytest.raises(UsageError) as caught:
        judge.judge(["How?"], ["401"])
    assert server.asked[0][1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text + str(caught.value) + judge.name


def test_a_key_for_openai_goes_to_no_other_host(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", KEY)
    verdicts(make_judge(f"moderation:{server.url}"), "Fine.")
    assert KEY not in str(server.asked)


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host", "http://user:word@host", "http://host?key=1"])
def test_only_plain_urls(address):
    with pytest.raises(UsageError, match="plain URL"):
        make_judge(f"moderation:{address}")
