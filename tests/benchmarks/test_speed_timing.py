"""Steps in turn, and the same steps as train() makes. No durations: a test's machine is no benchmark."""

from pathlib import Path
from typing import Any

import pytest
import torch

from antibody.benchmarks.speed.contenders import CONTENDERS, STAGES, Case, build, load, rows_of
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.benchmarks.speed.timing import TrainerContestant, interleaved


class Counting:
    """Writes its name down at every step."""

    def __init__(self, name: str, written: list[str]) -> None:
        self.name, self.written = name, written

    def warm_up(self) -> None:
        self.written.append(self.name.upper())

    def lap(self) -> float:
        self.written.append(self.name)
        return float(len(self.written))


def race(names: str, rounds: int, seconds: float = 1e9) -> tuple[str, list[list[float]]]:
    written: list[str] = []
    laps = interleaved(
        [Counting(name, written) for name in names],
        rounds,
        seconds=seconds,
        before_round=lambda: written.append("|"),
    )
    return "".join(written), laps


def test_one_step_of_each_in_turn_and_no_place_is_a_privilege() -> None:
    written, laps = race("abc", rounds=3)
    assert written == "ABC|abc|bca|cab"
    assert laps == [[5, 11, 14], [6, 9, 15], [7, 10, 13]]


def test_one_round_is_timed_even_without_time() -> None:
    assert race("ab", rounds=3, seconds=0.0)[0] == "AB|ab"


@pytest.mark.parametrize(("stage", "contender"), [(stage, name) for stage in STAGES for name in CONTENDERS[stage]])
def test_laps_are_the_steps_that_train_makes(
    stage: Any, contender: Any, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Four steps by train(), and one by train() and three laps, end in the same adapter, bit for bit."""
    settings = SpeedSettings(model=str(tiny_model_folder), dtype="float32", device="cpu", max_length=700, lora_r=4)
    case, found = Case(stage, "short", contender, 2, None, 4), []
    for laps in (0, 3):
        loaded = load(settings)
        rows = rows_of(case, loaded.tokenizer, 4, settings)
        trainer = build(case, loaded, rows, steps=4 - laps, output=tmp_path, settings=settings)
        contestant = TrainerContestant(trainer, lambda: None)
        if laps:
            contestant.warm_up()
            assert all(contestant.lap() > 0 for _ in range(laps))
        else:
            trainer.train()
        assert trainer.state.global_step == 4
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad]))
    assert torch.equal(*found)
    assert not torch.equal(found[0], torch.zeros_like(found[0]))
