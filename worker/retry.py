"""Trying again while a server is unavailable.

Owns: the wait between two tries, and the log lines of an outage.
Must not know: which command is tried.
Invariant: every wait ends at once when its event is set; an outage is logged once, then at most once a minute.
"""

import random
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
from worker.telemetry import Pulse

Result = TypeVar("Result")

#: Seconds between two reminders that the server is still unavailable.
REMIND_SECONDS = 60.0

_log = structlog.get_logger()


def backoff(tries: int, *, first: float, longest: float, least: float = 0.5) -> float:
    """Return the pause before the next try: doubled after each, capped, jittered.

    Jitter: what failed together, of one cause, is not all tried together again.

    Args:
        tries: Tries that failed before, 1 or more.
        first: Longest pause after the first, in any unit.
        longest: Longest pause after any.
        least: Least share of a pause that jitter leaves, 0 to 1.
    """
    # 20 doublings are more than any cap; 2 to the power of all tries would be a number without end.
    ceiling: float = min(longest, first * 2 ** min(tries - 1, 20))
    return ceiling * random.uniform(least, 1.0)  # noqa: S311 - jitter, not cryptography


class Outage:
    """Logs an outage: one line when it begins, one when it ends, between them one a reason and one a minute."""

    def __init__(self, what: str) -> None:
        """Start with the server available."""
        self._what = what
        self._since: float | None = None
        #: Reason to when it was last logged in this outage: two that take turns are no news each time.
        self._logged: dict[str, float] = {}
        self.count = 0
        #: Error class to how often an outage began with it.
        self.reasons: Counter[str] = Counter()

    @property
    def lasting(self) -> bool:
        """Whether the server is unavailable now."""
        return self._since is not None

    def away(self, error: StreamUnavailable) -> None:
        """Note a failed try."""
        now = time.monotonic()
        if self._since is None:
            self._since, self.count = now, self.count + 1
            self.reasons[error.reason] += 1
            self._logged.clear()
        elif error.reason in self._logged and now - max(self._logged.values()) < REMIND_SECONDS:
            return
        self._logged[error.reason] = now
        _log.warning("server_away", what=self._what, reason=error.reason, detail=str(error))

    def back(self) -> None:
        """Note a try that worked."""
        if self._since is not None:
            _log.info("server_back", what=self._what, away_seconds=round(time.monotonic() - self._since, 3))
            self._since = None


class RetryPolicy:
    """Tries again until the server is available or the worker stops, with capped and jittered pauses."""

    def __init__(
        self, stop: threading.Event, outage: Outage, max_seconds: float, *, pulse: Pulse | None = None
    ) -> None:
        """Take the event that ends every wait at once, the longest wait, and the pulse that each try beats."""
        self._stop, self._outage, self._max_seconds, self._pulse = stop, outage, max_seconds, pulse

    def call(self, command: Callable[[], Result]) -> Result:
        """Return what the command returns, however long the server is unavailable.

        The command must be idempotent.

        Raises:
            StreamUnavailable: The server is unavailable and the worker stops.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(StreamUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=self._max_seconds),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._note,
            reraise=True,
        )
        result = retrying(lambda: self._try(command))
        self._outage.back()
        return result

    def _try(self, command: Callable[[], Result]) -> Result:
        if self._pulse is not None:
            self._pulse.beat()
        return command()

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StreamUnavailable):
            self._outage.away(error)
            wait = state.next_action.sleep if state.next_action else 0.0
            _log.debug("trying_again", reason=error.reason, tries=state.attempt_number, in_seconds=round(wait, 3))
