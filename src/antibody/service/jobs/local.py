"""Worker processes on this machine, kept running."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from antibody.service.jobs.leases import release_all
from antibody.service.jobs.orders import Order
from antibody.service.storage.database import Database
from antibody.service.storage.ids import new_id

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.2
# A worker that ends sooner is begun again only after as long.
SHORT_LIFE = 5.0
# Between two attempts to begin a worker that the machine refuses.
BACK_OFF = 5.0
# For the step that a worker is at when it is told to stop.
STOP_SECONDS = 60.0


@dataclass
class _Slot:
    order: Order
    process: "subprocess.Popen[bytes]"
    began: float

    def close(self) -> None:
        """Gives up the pipe to it."""
        if self.process.stdin is not None:
            self.process.stdin.close()


class Workers:
    """One process for each order. A dead one's leases end at once, and another takes its place.

    But those of one that steered a cluster end by themselves: its workers there may be at a step, or saving it, until
    they see the lease end.

    Args:
        database: Where the leases are.
        orders: What each slot does; every process gets a name of its own.
    """

    def __init__(self, database: Database, orders: Sequence[Order]) -> None:
        self.database = database
        self.stopping = threading.Event()
        self.slots = [self._begun(order) for order in orders]
        self.thread = threading.Thread(target=self._keep_running, daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        return self.thread.is_alive() and all(slot.process.poll() is None for slot in self.slots)

    def stop(self) -> None:
        """Lets each finish its step, and write a checkpoint."""
        self.stopping.set()
        self.thread.join()
        for slot in self.slots:
            slot.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for slot in self.slots:
            try:
                slot.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop in time.", slot.order.worker)
                slot.process.kill()
                slot.process.wait()
            slot.close()

    def _begun(self, order: Order) -> _Slot:
        named = order._replace(worker=new_id("worker"))
        # One core is the server's: threads that train and wait for it slow each other down (docs/service.md).
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1))}
        process = subprocess.Popen(
            [sys.executable, "-m", "antibody.service.jobs.worker"],
            stdin=subprocess.PIPE,
            bufsize=0,
            env=threads | os.environ,
        )
        assert process.stdin is not None, "a pipe was asked for"
        # Held open: its end tells the worker that this process died. One that is dead by now is seen the next time.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(named.to_line().encode())
        return _Slot(named, process, time.monotonic())

    def _keep_running(self) -> None:
        while not self.stopping.wait(LOOK_EVERY):
            for index, slot in enumerate(self.slots):
                if slot.process.poll() is None:
                    continue
                if time.monotonic() - slot.began < SHORT_LIFE and slot.process.returncode >= 0:
                    continue
                logger.warning("A worker ended with %d; another is begun.", slot.process.returncode)
                slot.close()
                self._release(slot.order)
                try:
                    self.slots[index] = self._begun(slot.order)
                except OSError as error:
                    # As where there is no memory for one more process.
                    logger.error("No worker can be begun, which is tried again: %s.", error.strerror)  # noqa: TRY400
                    self.stopping.wait(BACK_OFF)

    def _release(self, order: Order) -> None:
        if order.cluster is not None:
            return
        try:
            release_all(self.database, order.worker)
        except DBAPIError:
            logger.warning("The database does not answer; a dead worker's lease ends by itself.")
