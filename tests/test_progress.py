"""Progress where nobody watches a bar."""

import pytest

from antibody import progress


def test_a_log_has_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.counted("Answering", 4) as advance:
        for done, now in ((1, 10.0), (2, 40.0), (3, 50.0), (4, 80.0)):
            clock[0] = now
            advance(done)
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert [line.split(",")[0] for line in said[:2]] == ["Answering 2/4", "Answering 4/4"]
    # And the bar when it is through.
    assert len(said) == 3
