"""What a worker says of itself: logs and counts.

Owns: the log format, the counters and the latency window that the heartbeat shows.
Must not know: streams.
Invariant: bounded memory, whatever the load.
"""

import logging
import sys
from collections import Counter, deque
from statistics import quantiles
from typing import Literal

import structlog

from contracts import Rejection, SignalVector
from worker.serving.results import CommitStatus

#: Requests whose latency the quantiles speak of.
LATENCY_WINDOW = 1000


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send one line an event to stderr: coloured on a terminal, JSON elsewhere."""
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


class Counters:
    """What the consumer did since it started; written by its thread alone, read by the heartbeat's."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.answered = 0
        self.rejected = 0
        self.dropped = 0
        self.failed = 0
        self.codes: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)

    def count(self, outcome: SignalVector | Rejection, status: CommitStatus, total_ms: float) -> None:
        """Note one outcome and the time from reading to publishing it."""
        if status is not CommitStatus.COMMITTED:
            self.dropped += 1
        elif isinstance(outcome, Rejection):
            self.rejected += 1
            self.codes[outcome.code.value] += 1
        else:
            self.answered += 1
            self._latencies_ms.append(total_ms)

    def latency_ms(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of the last answered requests, if there were two."""
        latencies = list(self._latencies_ms)
        if len(latencies) < 2:  # noqa: PLR2004 - quantiles need two
            return None
        cuts = quantiles(latencies, n=100)
        return round(cuts[49], 3), round(cuts[98], 3)
