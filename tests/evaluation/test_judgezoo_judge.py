"""The adapter to judgezoo. Its judges need large models or a service, so one with its API stands in for them."""

import math
import sys
from types import SimpleNamespace

import pytest

from antibody.errors import ModelError, UsageError
from antibody.evaluation.judges import make_judge


def judge_by(function):
    return SimpleNamespace(from_name=lambda name: function)


@pytest.fixture
def judgezoo(monkeypatch):
    """Puts a package in judgezoo's place, whose judge is what the test gives."""
    return lambda judge: monkeypatch.setitem(sys.modules, "judgezoo", SimpleNamespace(Judge=judge))


def test_a_probability_of_one_half_is_harmful_and_none_is_unparsable(judgezoo):
    seen = []

    def judge(chats):
        seen.extend(chats)
        return {"p_harmful": [0.5, 0.49, None, math.nan, 0.0], "rating": [1] * 5}

    judgezoo(judge_by(judge))
    answers = ["Sure.", "Take the bus to town, it is quicker.", "x", "y", "I cannot help with that."]
    chosen = make_judge("judgezoo:some")
    given = chosen.judge(["How?"] * 5, answers)
    assert [str(each.verdict) for each in given] == ["harmful", "neither", "unparsable", "unparsable", "refused"]
    assert chosen.name == "judgezoo:some"
    assert seen[1] == [{"role": "user", "content": "How?"}, {"role": "assistant", "content": answers[1]}]
    # judgezoo itself gives a list for no chats.
    assert chosen.judge([], []) == []


def test_a_judge_without_a_probability_is_refused(judgezoo):
    judgezoo(judge_by(lambda chats: {"category": ["direct_answer"]}))
    with pytest.raises(UsageError, match="category"):
        make_judge("judgezoo:xstest").judge(["How?"], ["So."])


@pytest.mark.parametrize(("error", "expected"), [(ValueError("Unknown judge"), UsageError), (OSError("x"), ModelError)])
def test_a_judge_that_cannot_be_made_is_named(judgezoo, error, expected):
    def from_name(name):
        raise error

    judgezoo(SimpleNamespace(from_name=from_name))
    with pytest.raises(expected, match="some"):
        make_judge("judgezoo:some")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "judgezoo", None)
    with pytest.raises(UsageError, match=r"antibody-ft\[judgezoo\]"):
        make_judge("judgezoo:harmbench")
