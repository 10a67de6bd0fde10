"""How a stage is begun, as far as nothing has to be begun for it. `tests/distributed` begins processes."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from antibody.errors import TrainingError, UsageError
from antibody.models.run import MARK
from antibody.training import launch as launching
from antibody.training import resolved, stages
from antibody.training.launch import launch
from antibody.training.settings import FinetuningSettings, LaunchSettings


def never(settings: Any) -> Any:
    raise AssertionError("the stage was begun")


def settings(tmp_path: Path, **changes: Any) -> FinetuningSettings:
    return FinetuningSettings(**({"model": "base", "data": "rows.jsonl", "output": tmp_path / "run"} | changes))


@pytest.mark.parametrize("option", ["--processes", "--cluster"])
def test_one_of_several_processes_begins_no_others(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    how = LaunchSettings(processes=2, cluster="local" if option == "--cluster" else None)
    with pytest.raises(UsageError, match=f"one of several already.*{option}"):
        launch(never, settings(tmp_path), how)


@pytest.mark.parametrize("said", [True, False])
def test_what_a_process_says_goes_before_which_is_seen_to_fail(
    said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second diverged and ended; the first, which lost it, is named first."""

    def both_fail(stage: Any, settings: Any, folder: Path) -> None:
        if said:
            error = TrainingError("It diverged.", hint="Begin again.", code="diverged")
            (folder / "rank-1").write_bytes(pickle.dumps(error))
        failures = {rank: ProcessFailure(local_rank=rank, pid=1, exitcode=1, error_file="") for rank in (0, 1)}
        raise ChildFailedError("stage", failures)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(launching, "elastic_launch", lambda config, work: both_fail)
    with pytest.raises(TrainingError) as caught:
        launch(never, settings(tmp_path, device="cpu"), LaunchSettings(processes=2))
    assert caught.value.code == ("diverged" if said else "process_lost")


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolved, "PartialState", lambda cpu: SimpleNamespace(num_processes=3))
    with pytest.raises(UsageError, match="8 rows cannot be split equally over 3 processes"):
        stages.finetune(settings(tmp_path, batch_size=8, allow_unaligned=True))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run, as far as can be seen from outside."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(MARK)
    return run


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"force": True}, "cluster"), ({"force": True, "model": "run"}, "conflict"), ({}, "run_exists")],
)
def test_no_run_is_lost_to_a_cluster_that_does_not_begin(
    changes: dict[str, Any], code: str, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        launch(never, settings(tmp_path, **changes), LaunchSettings(processes=2, cluster="127.0.0.1:1"))
    assert caught.value.code == code
    assert (begun / "config.yaml").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
