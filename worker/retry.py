"""Trying again while a server is unavailable.

Owns: the wait between two tries, and the log lines of an outage.
Must not know: which command is tried.
Invariant: every wait ends at once when its event is set; an outage is logged once, then at most once a minute.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from worker.errors import StreamUnavailable

Result = TypeVar("Result")

#: Seconds between two reminders that the server is still away.
REMIND_SECONDS = 60.0

_log = structlog.get_logger()


class Outage:
    """One line when the server goes, one when it is back, between them one a reason and one a minute."""

    def __init__(self, what: str) -> None:
        """Start with the server taken to be there."""
        self._what = what
        self._since: float | None = None
        #: Reason to when it was last said in this outage: two that take turns are no news each time.
        self._said: dict[str, float] = {}
        self.count = 0
        #: Error class to how often the server went away with it.
        self.reasons: Counter[str] = Counter()

    @property
    def lasting(self) -> bool:
        """Whether the server is away now."""
        return self._since is not None

    def away(self, error: StreamUnavailable) -> None:
        """Note a failed try."""
        now = time.monotonic()
        if self._since is None:
            self._since, self.count = now, self.count + 1
            self.reasons[error.reason] += 1
            self._said.clear()
        elif error.reason in self._said and now - max(self._said.values()) < REMIND_SECONDS:
            return
        self._said[error.reason] = now
        _log.warning("server_away", what=self._what, reason=error.reason, detail=str(error))

    def back(self) -> None:
        """Note a try that worked."""
        if self._since is not None:
            _log.info("server_back", what=self._what, away_seconds=round(time.monotonic() - self._since, 3))
            self._since = None


class Patience:
    """Tries again until the server is back or the worker is told to stop, with capped and jittered pauses."""

    def __init__(self, stop: threading.Event, outage: Outage, max_seconds: float) -> None:
        """Take the event that ends every wait at once."""
        self._stop, self._outage, self._max_seconds = stop, outage, max_seconds

    def call(self, command: Callable[[], Result]) -> Result:
        """Return what the command returns, however long the server is away.

        The command must be one that may be said twice.

        Raises:
            StreamUnavailable: The server is away and the worker is told to stop.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(StreamUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=self._max_seconds),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._note,
            reraise=True,
        )
        result = retrying(command)
        self._outage.back()
        return result

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StreamUnavailable):
            self._outage.away(error)
