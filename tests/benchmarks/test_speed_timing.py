"""Laps in turn, whatever a trainer does. No durations: a test's machine is no benchmark."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl

from antibody.benchmarks.speed_timing import Contestant, interleaved


class CountingTrainer:
    """Writes its name down at every step."""

    def __init__(self, name: str, written: list[str], steps: int = 10, fails_at: int | None = None) -> None:
        self.name, self.written, self.steps, self.fails_at = name, written, steps, fails_at

    def add_callback(self, callback: Any) -> None:
        self.callback = callback

    def train(self) -> None:
        control = TrainerControl()
        for step in range(self.steps):
            if step == self.fails_at:
                raise ValueError(self.name)
            self.written.append(self.name)
            self.callback.on_step_end(SimpleNamespace(), SimpleNamespace(), control)
            if control.should_training_stop:
                return


def race(trainers: list[CountingTrainer], rounds: int, seconds: float = 1e9) -> list[list[float]]:
    contestants = [Contestant(trainer, lambda: None).__enter__() for trainer in trainers]
    try:
        return interleaved(contestants, rounds, seconds=seconds, before_round=lambda: trainers[0].written.append("|"))
    finally:
        for contestant in contestants:
            contestant.__exit__(None, None, None)
        assert not any(contestant.thread.is_alive() for contestant in contestants)


def test_one_step_of_each_in_turn_and_no_place_is_a_privilege() -> None:
    written: list[str] = []
    laps = race([CountingTrainer(name, written) for name in "abc"], rounds=3)
    assert "".join(written) == "abc|abc|bca|cab"
    assert [len(each) for each in laps] == [3, 3, 3]
    assert all(lap > 0 for each in laps for lap in each)


def test_one_round_is_timed_even_without_time() -> None:
    written: list[str] = []
    laps = race([CountingTrainer(name, written) for name in "ab"], rounds=3, seconds=0.0)
    assert "".join(written) == "ab|ab"
    assert [len(each) for each in laps] == [1, 1]


def test_what_a_trainer_raises_is_raised_here() -> None:
    written: list[str] = []
    with pytest.raises(ValueError, match="b"):
        race([CountingTrainer("a", written), CountingTrainer("b", written, fails_at=1)], rounds=3)


def test_a_trainer_with_too_few_steps_is_not_timed() -> None:
    with pytest.raises(RuntimeError, match="fewer steps than laps"):
        race([CountingTrainer("a", [], steps=2)], rounds=3)
