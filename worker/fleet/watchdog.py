"""The last resort of a worker that was told to leave and does not.

Owns: how long leaving may take, and what happens to the entries in hand when it takes longer.
Must not know: why it takes long (a hung compute, a registry or a server that does not answer).
Invariant: after the time limit, or shortly after a second signal, the process ends; what it had read is claimable by
others then, not when its lease runs out.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from contracts import GROUP, StreamNames
from worker.errors import StreamUnavailable
from worker.transport.client import Client, translated
from worker.transport.scripts import script

#: Time beyond the limit in which the main thread gives back by itself, in seconds.
MARGIN_SECONDS = 1.0
#: Time after a second signal in which it does, in seconds.
HURRY_SECONDS = 2.0
#: Most entries that are given back; far more than a batch.
_AT_ONCE = 1000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker was told."""

    stop: threading.Event
    #: Give back instead of finishing.
    leave_now: threading.Event


class Departure(threading.Thread):
    """Waits until the worker is told to stop, then ends the process if it has not ended in time."""

    def __init__(
        self,
        hand_back: Callable[[], int],
        orders: Orders,
        *,
        limit_seconds: float,
        end_process: Callable[[int], None] = os._exit,
    ) -> None:
        """Take what gives back the entries in hand; it belongs to this thread from now on."""
        super().__init__(name="departure", daemon=True)
        self._hand_back, self._orders, self._limit_seconds = hand_back, orders, limit_seconds
        self._end_process = end_process
        self._left = threading.Event()

    def left(self) -> None:
        """Note that the worker left by itself."""
        self._left.set()

    def run(self) -> None:
        """Wait, and end the process where nobody else does."""
        while not self._orders.stop.wait(0.5):
            if self._left.is_set():
                return
        if self._waits():
            return
        _log.error(
            "leaving_took_too_long",
            limit_seconds=self._limit_seconds,
        )
        try:
            _log.warning("entries_handed_back", entries=self._hand_back())
        except StreamUnavailable as error:
            _log.warning("entries_left_to_their_lease", reason=error.reason)
        self._end_process(1)

    def _waits(self) -> bool:
        """Return whether the worker left before its time was up."""
        deadline = time.monotonic() + self._limit_seconds
        while time.monotonic() < deadline and not self._orders.leave_now.is_set():
            if self._left.wait(0.1):
                return True
        in_time = time.monotonic() < deadline
        self._orders.leave_now.set()
        return self._left.wait(HURRY_SECONDS if in_time else MARGIN_SECONDS)


class HandBack:
    """Gives back all that is pending under one consumer's name."""

    def __init__(
        self, commands: Client, names: StreamNames, worker: str, *, lease_ms: int, in_work: Callable[[], str]
    ) -> None:
        """Take a connection that nobody else uses."""
        self._script = script(commands, "hand_back")
        self._names, self._worker, self._lease_ms, self._in_work = names, worker, lease_ms, in_work

    def __call__(self) -> int:
        """Return how many entries were given back.

        Raises:
            StreamUnavailable: The server is away.
        """
        with translated():
            given = self._script(
                keys=[self._names.requests],
                args=[GROUP, self._worker, self._lease_ms, self._in_work(), _AT_ONCE, f"{self._worker}:handed-back"],
            )
        return int(given)
