"""What a worker counts of itself: outcomes, durations, signs of life.

Owns: the counters that heartbeat and metrics show, the pulse of a loop.
Must not know: streams.
Invariant: bounded memory, whatever the load.
"""

import time
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from statistics import quantiles

from contracts import Rejection, SignalVector
from worker.transport.scripts import CommitStatus

#: Requests whose latency the quantiles describe.
LATENCY_WINDOW = 1000
#: Upper bounds of the histograms, in seconds: a vector takes under a millisecond, a backlog minutes.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


class Pulse:
    """When a loop last made progress; beaten by its thread, looked at by others."""

    def __init__(self) -> None:
        """Start unbeaten: a loop that has not begun is not judged."""
        self._beaten: float | None = None

    def beat(self) -> None:
        """Note progress: a turn of the loop, an entry, a try to reach an unavailable server."""
        self._beaten = time.monotonic()

    def still_seconds(self) -> float:
        """Return the seconds without progress; 0 before the first."""
        return 0.0 if self._beaten is None else time.monotonic() - self._beaten


class Histogram:
    """How many durations fall between the bounds; written by one thread."""

    def __init__(self) -> None:
        """Start empty."""
        #: One count a bound, and one for what is above the last.
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, milliseconds: float) -> None:
        """Note one duration."""
        seconds = milliseconds / 1000
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one request went, in milliseconds."""

    #: From the producer's XADD until it was read, by two clocks: the server's and this machine's.
    queue_ms: float
    compute_ms: float
    commit_ms: float

    @property
    def total_ms(self) -> float:
        """From reading to publishing."""
        return round(self.compute_ms + self.commit_ms, 3)


class Counters:
    """What the consumer did since it started; written by its thread alone, read by others."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.answered = 0
        self.rejected = 0
        self.dropped = 0
        self.failed = 0
        #: Requests of a canary's share that the active version answered, since the canary could not.
        self.canary_fallbacks = 0
        #: Vectors published, by the part of the model that computed them.
        self.parts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        #: Status of commits that published nothing: duplicate, conflict, fenced.
        self.drops: Counter[str] = Counter()
        #: Entries not answered here: given to a worker that can, waiting for one.
        self.left: Counter[str] = Counter()
        #: Entries read, by where they came from: new, own, claimed, given.
        self.deliveries: Counter[str] = Counter()
        self.stages = {stage: Histogram() for stage in ("queue", "compute", "commit")}
        self.end_to_end = Histogram()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self._timings: deque[Timing] = deque(maxlen=LATENCY_WINDOW)

    def count(self, outcome: SignalVector | Rejection, status: CommitStatus, total_ms: float) -> None:
        """Note one outcome and the time from reading to publishing it."""
        if status is not CommitStatus.COMMITTED:
            self.drop(status)
        elif isinstance(outcome, Rejection):
            self.rejected += 1
            self.codes[outcome.code.value] += 1
        else:
            self.answered += 1
            self.parts[outcome.served_as.value] += 1
            self._latencies_ms.append(total_ms)

    def drop(self, status: CommitStatus) -> None:
        """Note an entry that published nothing."""
        self.dropped += 1
        self.drops[status.value] += 1

    def measure(self, timing: Timing) -> None:
        """Note where the time of one published outcome went."""
        self.stages["queue"].observe(timing.queue_ms)
        self.stages["compute"].observe(timing.compute_ms)
        self.stages["commit"].observe(timing.commit_ms)
        self.end_to_end.observe(timing.queue_ms + timing.total_ms)
        self._timings.append(timing)

    def latency_ms(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of the last answered requests, if there were two."""
        return _median_and_last_percentile(list(self._latencies_ms))

    def stages_ms(self) -> dict[str, tuple[float, float]]:
        """Return stage to median and 99th percentile of the last published outcomes, if there were two."""
        timings = list(self._timings)
        stages = {
            "queue": [one.queue_ms for one in timings],
            "compute": [one.compute_ms for one in timings],
            "commit": [one.commit_ms for one in timings],
            "end_to_end": [one.queue_ms + one.total_ms for one in timings],
        }
        found = {stage: _median_and_last_percentile(durations) for stage, durations in stages.items()}
        return {stage: pair for stage, pair in found.items() if pair is not None}


def _median_and_last_percentile(durations_ms: list[float]) -> tuple[float, float] | None:
    if len(durations_ms) < 2:  # noqa: PLR2004 - quantiles need two
        return None
    cuts = quantiles(durations_ms, n=100)
    return round(cuts[49], 3), round(cuts[98], 3)
