"""Timing trainers side by side: one step of each in turn, in one thread.

A trainer's first step is made by its own ``train()``, which prepares everything and warms up. Later steps are made
here of the same parts, as `transformers.Trainer` joins them: reading and collating the rows, ``training_step``,
clipping, the optimiser, the schedule. What the loop adds (logging, callbacks) is the same for all and left out; whole
processes (``--end-to-end``) hold it.

Threads that wait their turn inside ``train()`` would hold it too. But libgomp spins for far shorter once more
threads have used it than there are cores, which no user's process sees.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch


class Contestant(Protocol):
    """Someone who takes part."""

    def warm_up(self) -> None:
        """Makes the first step."""

    def lap(self) -> float:
        """Makes one more step, and returns its seconds."""


class TrainerContestant:
    """A trainer that is run step by step.

    Args:
        trainer: Ready for ``train()``, with ``max_steps=1``, no accumulation, and rows for all laps.
        synchronize: Waits until the device has done what it was given.
    """

    def __init__(self, trainer: Any, synchronize: Callable[[], None]) -> None:
        self.trainer = trainer
        self.synchronize = synchronize

    def warm_up(self) -> None:
        self.trainer.train()
        self.batches = iter(self.trainer.get_train_dataloader())
        # The first batch has been trained on.
        next(self.batches)

    def lap(self) -> float:
        trainer = self.trainer
        self.synchronize()
        started = time.perf_counter()
        [inputs], items = trainer.get_batch_samples(self.batches, 1, trainer.args.device)
        trainer.training_step(trainer.model, inputs, items)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.model.zero_grad()
        trainer.state.global_step += 1
        self.synchronize()
        return time.perf_counter() - started


def interleaved(
    contestants: Sequence[Contestant], rounds: int, *, seconds: float, before_round: Callable[[], None]
) -> list[list[float]]:
    """One lap of each in turn, again and again; a round begins one further each time, so that no place is a privilege.

    Args:
        contestants: Who takes part.
        rounds: Timed rounds, after one that warms up and is not reported.
        seconds: No new round begins after that long, though one is always timed.
        before_round: Called before each timed round.

    Returns:
        The laps of each contestant, in seconds.
    """
    started = time.perf_counter()
    for contestant in contestants:
        contestant.warm_up()
    laps: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds):
        if number and time.perf_counter() - started > seconds:
            break
        before_round()
        for place in range(len(contestants)):
            index = (place + number) % len(contestants)
            laps[index].append(contestants[index].lap())
    return laps


def synchronize_of(device: torch.device) -> Callable[[], None]:
    """Waits for an accelerator; a CPU is always done."""
    return (lambda: None) if device.type == "cpu" else (lambda: torch.accelerator.synchronize(device))
