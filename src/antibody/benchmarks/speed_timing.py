"""Timing trainers side by side: each runs its own ``train()``, and one step of each is made in turn.

A lap lasts from the end of a trainer's step to the end of its next one, so it holds all that the user pays: reading and
collating the rows, the passes, clipping, the optimiser, logging. Every trainer waits in a thread of its own between
laps, so whatever disturbs the machine for a while disturbs all of them.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from transformers import TrainerCallback


class Contestant:
    """A trainer that is run step by step. Use it as a context manager, so that it ends whatever happens.

    Args:
        trainer: Ready for ``train()``, with at least as many steps as laps are asked for.
        synchronize: Waits until the device has done what it was given.
    """

    def __init__(self, trainer: Any, synchronize: Callable[[], None]) -> None:
        self.trainer = trainer
        self.synchronize = synchronize
        self.turn, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.stopping = False
        self.error: BaseException | None = None
        trainer.add_callback(_Turns(self))
        self.thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        self.turn.acquire()
        try:
            if not self.stopping:
                self.trainer.train()
        except BaseException as error:  # noqa: BLE001 (raised again where the lap is waited for)
            self.error = error
        else:
            self.error = RuntimeError("The trainer had fewer steps than laps.")
        finally:
            self.done.release()

    def lap(self) -> float:
        """Makes one step and returns its seconds. The first lap also holds all that ``train()`` prepares.

        Raises:
            BaseException: Whatever the trainer raised.
        """
        self.synchronize()
        started = time.perf_counter()
        self.turn.release()
        self.done.acquire()
        self.synchronize()
        seconds = time.perf_counter() - started
        if self.error is not None:
            raise self.error
        return seconds

    def __enter__(self) -> "Contestant":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping = True
        self.turn.release()
        self.thread.join()


class _Turns(TrainerCallback):  # type: ignore[misc]
    """Ends a lap after each step and waits for the next."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.contestant.done.release()
        self.contestant.turn.acquire()
        if self.contestant.stopping:
            control.should_training_stop = True
        return control


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
        contestant.lap()
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
