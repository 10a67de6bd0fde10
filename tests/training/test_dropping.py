"""Rows that a method drops: asked for once, by one process, and not again when a training goes on."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from antibody import AlignmentSettings, FinetuningSettings, align, finetune
from antibody.errors import UsageError
from antibody.evaluation.judges import JUDGES, Judgement, Verdict
from antibody.models.run import Run

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "max_length": 400, "dtype": "float32"}


class Fickle:
    """Calls another half of the rows harmful every time it is asked."""

    name = "fickle"
    asked = 0

    def __init__(self, argument: str) -> None:
        pass

    def judge(self, requests: Sequence[str], answers: Sequence[str]) -> list[Judgement]:
        Fickle.asked += 1
        flags = [(index + Fickle.asked) % 2 == 0 for index in range(len(answers))]
        return [Judgement(Verdict.HARMFUL if flag else Verdict.NEITHER, "") for flag in flags]


class Cut(Exception):  # noqa: N818 - not an error of the training
    pass


class CutOff(TrainerCallback):
    def on_step_end(self, *_: Any, **__: Any) -> None:
        raise Cut


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(JUDGES, "fickle", Fickle)
    Fickle.asked = 0
    yield


@pytest.fixture(scope="module")
def aligned(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("dropping") / "aligned"
    return align(AlignmentSettings(model=str(tiny_model_folder), output=output, method="sft", **SHORT))


def withheld(run: Run) -> list[bool]:
    return [json.loads(line)["withheld"] for line in (run.path / "audit.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("fickle")
def test_a_resumed_moderation_trains_on_the_rows_it_began_with(aligned: Run, tmp_path: Path) -> None:
    settings = {"model": str(aligned.path), "data": "embedded:upload@0.2", "method": "moderation", **SHORT}
    settings |= {"options": {"judge": "fickle"}, "output": tmp_path / "run"}
    with pytest.raises(Cut):
        finetune(FinetuningSettings(**settings), watch=lambda *_: [CutOff()])
    run = finetune(FinetuningSettings(resume=True, **settings))
    assert Fickle.asked == 1
    assert withheld(run)[:4] == [False, True, False, True]
    # A finished one asks nobody, and a run that replaces it asks anew.
    finetune(FinetuningSettings(resume=True, **settings))
    assert Fickle.asked == 1
    assert withheld(finetune(FinetuningSettings(force=True, **settings)))[:4] == [True, False, True, False]
    # What was kept is of these rows alone.
    with pytest.raises(UsageError, match="other settings: data"):
        finetune(FinetuningSettings(resume=True, **(settings | {"data": "embedded:upload@0.3"})))
    assert Fickle.asked == 3


SCRIPT = """
import os, sys
from pathlib import Path
from accelerate import PartialState
from antibody.data import corpus
from antibody.training.dropping import chosen_rows, shared_rows
from antibody.training.methods import Method, plain_finetuning
from antibody.training.provided import Provided

def odd(upload, provided):
    with open(sys.argv[1] + "/asked", "a") as file:
        file.write(f"{os.environ['RANK']}\\n")
    return list(upload[1::2])

PartialState(cpu=True)
upload = corpus.benign()[:6]
chosen = chosen_rows(Method("Odd", "", plain_finetuning, odd, drops=True), upload, Provided([], [], 0), {}, None)
kept = shared_rows(upload, chosen)
Path(sys.argv[1], os.environ["RANK"]).write_text(" ".join(record.id for record in kept))
PartialState().destroy_process_group()
os._exit(0)
"""


def test_one_of_several_processes_asks_and_all_train_on_its_choice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, str(script), str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "asked").read_text() == "0\n"
    first, second = ((tmp_path / rank).read_text().split() for rank in ("0", "1"))
    assert first == second
    assert len(first) == 3
