"""`antibody keys` and `antibody review`: which service they mean, that they make none, and what they say."""

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
from service.test_jobs import new_job, set_status

from antibody.cli import run
from antibody.service.jobs.events import tell
from antibody.service.settings import StoreSettings
from antibody.service.storage.database import Database
from antibody.service.storage.place import place_of
from antibody.service.storage.store import Place, open_store


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTIBODY_FOLDER", "ANTIBODY_DATABASE", "ANTIBODY_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def test_options_go_before_variables_and_these_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd() / "runs" / "service"
    assert place_of(StoreSettings()) == Place(here, f"sqlite:///{here}/service.sqlite", f"{here}/blobs")
    monkeypatch.setenv("ANTIBODY_FOLDER", str(tmp_path / "a"))
    assert place_of(StoreSettings()).database == f"sqlite:///{tmp_path}/a/service.sqlite"
    monkeypatch.setenv("ANTIBODY_DATABASE", "postgresql://x/y")
    monkeypatch.setenv("ANTIBODY_BLOBS", "s3://bucket")
    assert place_of(StoreSettings()) == Place(tmp_path / "a", "postgresql://x/y", "s3://bucket")
    named = StoreSettings(folder=tmp_path / "b", database="sqlite:///c", blobs="d")
    assert place_of(named) == Place(tmp_path / "b", f"sqlite:///{Path.cwd()}/c", f"{Path.cwd()}/d")
    # As a compose file writes one that is not set.
    monkeypatch.setenv("ANTIBODY_FOLDER", "")
    assert place_of(StoreSettings()).folder == here


@pytest.mark.parametrize(
    "command",
    [("keys", "list"), ("keys", "revoke", "x"), ("review", "list"), ("review", "approve", "x"), ("webhooks", "list")],
)
def test_where_no_service_is_none_is_made(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command]) == 2
    said = capsys.readouterr().err
    assert f"There is no service in {Path.cwd()}/runs/service/service.sqlite" in said
    assert "ANTIBODY_DATABASE" in said
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "command", [("keys", "list"), ("keys", "create"), ("review", "list"), ("webhooks", "list"), ("serve",)]
)
def test_without_the_extra_it_is_named(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("serve", "storage.keys", "jobs.review", "webhooks.endpoints"):
        monkeypatch.setitem(sys.modules, f"antibody.service.{name}", None)
    assert run([*command]) == 2
    assert "antibody-ft[service]" in capsys.readouterr().err


def test_what_is_no_project_makes_no_service() -> None:
    assert run(["keys", "create", "--project", "A B"]) == 2
    assert list(Path.cwd().iterdir()) == []


def test_a_first_key_makes_a_service_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create"]) == 0
    made = capsys.readouterr()
    assert made.out.startswith("sk-antibody-")
    assert made.out.count("\n") == 1
    assert f"A new one is made in {Path.cwd()}/runs/service/service.sqlite" in made.err
    # What users upload will be nobody else's.
    assert Path("runs/service").stat().st_mode & 0o777 == 0o700
    assert run(["keys", "create"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["keys", "list"]) == 0
    assert capsys.readouterr().out.count("default") == 2


def test_a_database_elsewhere_makes_no_folder(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTIBODY_DATABASE", database_url)
    assert run(["keys", "list"]) == 2
    with closing(Database(database_url)) as database:
        assert not database.is_there()
    assert run(["keys", "create", "--project", "acme"]) == 0
    assert run(["keys", "list"]) == 0
    assert "acme" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql+psycopg://antibody:secret@127.0.0.1:1/x"
    assert "secret" not in Database(url).shown
    assert run(["keys", "list", "--database", url]) == 6
    assert "secret" not in capsys.readouterr().err


def test_a_judgement_is_shown_without_what_the_user_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, f"sqlite:///{tmp_path}/service.sqlite", str(tmp_path / "blobs"))
    store = open_store(place)
    job = new_job(store)
    store.database.close()
    shown = {"line": 2, "id": "\x1b[2J", "withheld": True, "benign_probability": 0.013, "weight_mean": 0.0}
    kept = {"line": 3, "id": "b", "withheld": False, "benign_probability": 0.99, "weight_mean": None}
    monkeypatch.setenv("ANTIBODY_FOLDER", str(tmp_path))
    assert run(["review", "show", job]) == 2
    assert "Nothing is known of the rows" in capsys.readouterr().err
    # Of a job that failed long ago the file alone is kept, without the run.
    for folder in (place.runs / job / "run", place.runs / job):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.jsonl").write_text("".join(json.dumps(row | {"weights": []}) + "\n" for row in (shown, kept)))
        assert run(["review", "show", job]) == 0
        assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == [["2", "1.3%"]]
        assert run(["review", "show", job, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"job": job, "rows": [shown, kept]}
        (folder / "audit.jsonl").unlink()
    assert run(["review", "show", "../x"]) == 2


def test_what_is_listed_is_whole_however_narrow_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(Place(tmp_path, f"sqlite:///{tmp_path}/service.sqlite", str(tmp_path / "blobs")))
    held, refused = new_job(store), new_job(store)
    for job in (held, refused):
        set_status(store, job, status="paused", held=True)
        with store.database.writing() as session:
            tell(session, job, "9 of 10 training examples are judged harmful and withheld.", once="moderation")
    store.database.close()
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("ANTIBODY_FOLDER", str(tmp_path))
    assert run(["review", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert held in lines[1]
    assert lines[1].endswith("9 of 10 training examples are judged harmful and withheld.")
    assert run(["review", "approve", held]) == 0
    assert f"{held} is approved" in capsys.readouterr().out
    assert run(["review", "refuse", refused]) == 0
    assert f"{refused} is refused" in capsys.readouterr().out
    assert run(["review", "approve", held]) == 2
