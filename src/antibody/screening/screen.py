"""A model's screen: a probe, and where its score turns from harmful to benign. An aligned run holds one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from antibody.errors import ModelError
from antibody.files import sha256
from antibody.models.run import Run, run_of
from antibody.objectives.gate import Calibration, among_upload
from antibody.screening.calibration import Fit, fit_calibration
from antibody.screening.probe import Probe, States, fit_probe

SCREEN_FILE = "screen.safetensors"


class Judged(NamedTuple):
    """What a screen thinks of the rows of an upload.

    Attributes:
        scores: q_i.
        benign_probabilities: 1 − h_i, see `antibody.objectives.gate`.
    """

    scores: list[float]
    benign_probabilities: list[float]


@dataclass(frozen=True)
class Screen:
    """Judges rows by their hidden states in one model.

    Attributes:
        probe: Scores a row.
        calibration: Turns the score into a probability, where harmful and benign rows are as many.
    """

    probe: Probe
    calibration: Calibration

    def judge(self, rows: Sequence[States]) -> Judged:
        """Judges the rows of an upload, all of them together, in order.

        Raises:
            ModelError: ``not_finite``, where hidden states are not numbers.
        """
        scores = [self.probe.score(row) for row in rows]
        broken = sum(not math.isfinite(score) for score in scores)
        if broken:
            raise ModelError(
                f"The hidden states of {broken} of {len(rows)} rows are not numbers, so they cannot be judged.",
                hint="Choose another --dtype, or make the aligned run again with a lower learning rate.",
                code="not_finite",
            )
        alone = self.calibration.benign_probability(torch.tensor(scores, dtype=torch.float64))
        return Judged(scores, among_upload(alone).tolist())


class Made(NamedTuple):
    """A new screen.

    Attributes:
        screen: It.
        fit: How far its calibration can be trusted.
        benign_scores: Of the benign rows that it was made on.
    """

    screen: Screen
    fit: Fit
    benign_scores: Sequence[float] = ()


def make_screen(
    harmful: Sequence[States],
    benign: Sequence[States],
    held_out_harmful: Sequence[States],
    held_out_benign: Sequence[States],
) -> Made:
    """A probe on rows the model knows, calibrated on rows that neither has seen.

    Raises:
        ModelError: ``not_calibrated``, see `fit_calibration`.
    """
    probe = fit_probe(harmful, benign)
    fit = fit_calibration([probe.score(row) for row in held_out_harmful], [probe.score(row) for row in held_out_benign])
    return Made(Screen(probe, fit.calibration), fit, [probe.score(row) for row in benign])


def save_screen(run: Run, made: Made) -> dict[str, Any]:
    """Writes the probe into a run, and returns what the run's manifest is to say of the screen."""
    probe = made.screen.probe
    tensors = {
        "prompt_weight": np.asarray(probe.prompt_weight, dtype=np.float64),
        "response_weight": np.asarray(probe.response_weight, dtype=np.float64),
        "bias": np.array([probe.bias]),
    }
    temporary = run.path / f".{SCREEN_FILE}"
    save_file(tensors, temporary)
    temporary.replace(run.path / SCREEN_FILE)
    return made.fit.to_manifest() | {"sha256": sha256(run.path / SCREEN_FILE)}


def screen_of(model: str | Path) -> Screen:
    """The screen that a run holds.

    Raises:
        UsageError: The model is no run of ours.
        ModelError: ``not_calibrated``, where the run holds none; ``screen_changed``, where it is not its manifest's.
    """
    run = run_of(model)
    described = run.manifest().get("calibration")
    file = run.path / SCREEN_FILE
    if described is None or not file.exists():
        raise ModelError(
            f"{model} has no calibrated screen, by which the gate judges rows.",
            hint=f"Make one: `antibody calibrate --model {model} --refit --harmful F --benign F`.",
            code="not_calibrated",
        )
    if sha256(file) != described["sha256"]:
        raise ModelError(
            f"{file} is not the one that the run's manifest.json describes.",
            hint=f"Restore it, or make it again: `antibody calibrate --model {model} --refit --harmful F --benign F`.",
            code="screen_changed",
        )
    tensors = load_file(file)
    probe = Probe(tensors["prompt_weight"], tensors["response_weight"], float(tensors["bias"][0]))
    return Screen(probe, Calibration(described["decision_point"], described["scale"]))
