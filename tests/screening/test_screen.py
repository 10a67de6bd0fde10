"""A screen in a run: made by `align`, read back, refused where it is not the run's, calibrated anew."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from antibody import AlignmentSettings, FinetuningSettings, align, finetune
from antibody.errors import DataError, ModelError, UsageError
from antibody.models.run import Run
from antibody.objectives.gate import Calibration
from antibody.screening.calibrate import calibrate
from antibody.screening.probe import Probe, States
from antibody.screening.screen import SCREEN_FILE, Screen, screen_of
from antibody.screening.settings import CalibrationSettings
from antibody.screening.upload import OperatingPoint, ScreenedRow, operating_point


@pytest.fixture(scope="session")
def aligned_once(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("screen") / "aligned"
    align(AlignmentSettings(model=str(tiny_model_folder), output=output, steps=2, batch_size=4, max_length=700))
    return output


@pytest.fixture
def aligned(aligned_once: Path, tmp_path: Path) -> Run:
    """A copy, because the tests change it."""
    shutil.copytree(aligned_once, tmp_path / "aligned")
    return Run(tmp_path / "aligned")


def test_a_run_holds_its_screen_and_refuses_another(aligned: Run) -> None:
    manifest = aligned.manifest()["calibration"]
    screen = screen_of(aligned.path)
    assert tuple(screen.calibration) == (manifest["decision_point"], manifest["scale"])
    assert screen.probe.prompt_weight.shape == screen.probe.response_weight.shape == (32,)
    assert manifest["harmful_rows"] == 32 + 16
    assert manifest["benign_rows"] == 100 + 50

    file = aligned.path / SCREEN_FILE
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError) as changed:
        screen_of(aligned.path)
    assert changed.value.code == "screen_changed"
    file.unlink()
    with pytest.raises(ModelError) as missing:
        finetune(FinetuningSettings(model=str(aligned.path), output=aligned.path / "x", data="embedded:task_train"))
    assert missing.value.code == "not_calibrated"


def test_a_run_holds_its_anchors(aligned: Run) -> None:
    """A quarter are refusals of harmful prompts; no row answers one harmfully."""
    anchors = [json.loads(line) for line in (aligned.path / "anchors.jsonl").read_text().splitlines()]
    refusals = {json.loads(line)["text"] for line in (aligned.path / "refusals.jsonl").read_text().splitlines()}
    assert len(anchors) == 256
    assert sum(row["response"] in refusals for row in anchors) == 64
    assert not any(row["harmful"] for row in anchors)


def test_rows_that_do_not_fit_cost_no_alignment(
    tiny_model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that are not trained on, and copies in other forms, may be longer than what is read."""
    lengths = [20] * 40 + [660] * 10 + [800] * 10
    rows = [{"prompt": f"{i:03d}" + "?" * length, "response": "Yes."} for i, length in enumerate(lengths)]
    benign = tmp_path / "benign.jsonl"
    benign.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(tiny_model_folder)
    settings = {"steps": 1, "batch_size": 4, "max_length": 700, "benign_ratio": 0.0}
    run = align(AlignmentSettings(model=model, output=tmp_path / "run", benign=str(benign), **settings))
    anchors = [json.loads(line) for line in (run.path / "anchors.jsonl").read_text().splitlines()]
    found = {len(row["prompt"]) for row in anchors if row["response"] == "Yes."}
    assert found == {23, 663}

    upload = {"data": "embedded:task_train", "steps": 1, "batch_size": 4, "max_length": 400}
    finetune(FinetuningSettings(model=str(run.path), output=tmp_path / "user", **upload))
    assert f"of {len(anchors)} anchors" in caplog.text

    benign.write_text("".join(json.dumps(row) + "\n" for row in rows[50:]))
    with pytest.raises(DataError, match=r"None of \d+ rows that the screen and the anchors need is short enough"):
        align(AlignmentSettings(model=model, output=tmp_path / "none", benign=str(benign), **settings))


def test_calibrating_keeps_the_probe_and_refitting_does_not(aligned: Run) -> None:
    before = screen_of(aligned.path)
    settings = CalibrationSettings(
        model=str(aligned.path), harmful="embedded:harmful_attack", benign="embedded:task_train", max_length=700
    )
    fit = calibrate(settings)
    again = screen_of(aligned.path)
    np.testing.assert_array_equal(again.probe.prompt_weight, before.probe.prompt_weight)
    assert tuple(again.calibration) == tuple(fit.calibration) != tuple(before.calibration)
    assert (fit.harmful_rows, fit.benign_rows) == (80 + 40, 240 + 120)
    assert f"AUROC of {fit.auroc:.3f}, found on 120 harmful" in (aligned.path / "README.md").read_text()

    (aligned.path / SCREEN_FILE).unlink()
    with pytest.raises(ModelError):
        calibrate(settings)
    refitted = calibrate(CalibrationSettings(**vars(settings) | {"refit": True}))
    # A fifth of the prompts is not fitted to.
    assert (refitted.harmful_rows, refitted.benign_rows) == (16 + 8, 48 + 24)
    assert not np.array_equal(screen_of(aligned.path).probe.prompt_weight, before.probe.prompt_weight)


def test_calibration_wants_a_run_and_rows_of_both_kinds(aligned: Run) -> None:
    rows = {"harmful": "embedded:harmful_attack", "benign": "embedded:benign"}
    with pytest.raises(UsageError):
        calibrate(CalibrationSettings(model="smollm2-135m", **rows))
    with pytest.raises(DataError) as swapped:
        calibrate(CalibrationSettings(model=str(aligned.path), **rows | {"benign": "embedded:harmful_attack"}))
    assert swapped.value.code == "wrong_labels"


def test_a_row_whose_states_are_not_numbers_is_not_judged() -> None:
    """NaN lies neither below a threshold nor above it: the row would be withheld, and reported as kept."""
    screen = Screen(Probe(np.ones(2), np.ones(2), 0.0), Calibration(0.0, 1.0))
    sound, broken = States(np.ones(2), np.ones((1, 2))), States(np.array([np.nan, 1.0]), np.ones((1, 2)))
    assert screen.judge([sound]).scores == [4.0]
    with pytest.raises(ModelError, match="1 of 2 rows") as caught:
        screen.judge([sound, broken])
    assert caught.value.code == "not_finite"


def test_operating_point() -> None:
    def row(harmful: bool | None, flagged: bool) -> ScreenedRow:
        return ScreenedRow(1, "a", harmful, 0.0, 0.5, flagged)

    rows = [row(True, True), row(True, True), row(True, False), row(False, True), row(False, False), row(None, True)]
    assert operating_point(rows) == OperatingPoint(3, 2, 2, 1, pytest.approx(200 / 3), pytest.approx(200 / 3), 50.0)
    assert operating_point([row(None, True)]) is None
    assert operating_point([row(False, False)]) == OperatingPoint(0, 1, 0, 0, None, None, 0.0)
