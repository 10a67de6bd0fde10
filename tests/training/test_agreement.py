"""Processes that do not find the same. `tests/distributed` begins real ones."""

import pytest

from antibody.errors import AntibodyError, DataError, UsageError
from antibody.training import agreement
from antibody.training.agreement import agreed, refuse_differences


def others_have(monkeypatch: pytest.MonkeyPatch, *theirs: object) -> None:
    monkeypatch.setattr(agreement, "gather_object", lambda mine: [*mine, *theirs])


def test_what_another_process_finds_is_raised_here_and_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    others_have(monkeypatch, None, DataError("It is empty.", hint="Fill it.", code="empty_file", path="a.jsonl"))
    with pytest.raises(DataError, match=r"In process 2: a.jsonl: It is empty.") as caught, agreed("cpu"):
        pass
    assert caught.value.by_all


def test_the_first_process_speaks_of_what_it_finds_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    others_have(monkeypatch, UsageError("Not there.", hint="Look.", code="other"))
    with pytest.raises(AntibodyError, match=r"^A path cannot be used"), agreed("cpu"):
        raise FileNotFoundError("a.jsonl")


def test_processes_that_read_other_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    others_have(monkeypatch, {"upload": "1", "steps": 3}, {"upload": "2", "steps": 3})
    with pytest.raises(UsageError, match="Process 2 has other inputs than process 0: upload") as caught:
        refuse_differences({"upload": "1", "steps": 3})
    assert caught.value.code == "inputs_differ"
    assert caught.value.by_all
    others_have(monkeypatch, {"upload": "1", "steps": 3})
    refuse_differences({"upload": "1", "steps": 3})
