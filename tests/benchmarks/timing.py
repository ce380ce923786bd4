"""How a call is timed: warm-up, rounds of repeats, the middle one of the quietest round.

Owns: `Timing` and the clock.
Must not know: what is timed.
Invariant: the figure is a median, never the fastest call; the quietest of several rounds, since what else runs on a
machine comes and goes.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Rounds a figure, and seconds that one round may take beyond its least number of runs.
ROUNDS, ROUND_SECONDS = 5, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of a call."""

    #: Wall time.
    median: float
    fastest: float
    #: Processor time of all threads, which a busy machine hardly changes.
    processor: float
    runs: int


def timed(call: Callable[[], object], *, warm_ups: int = 3, least: int = 5, most: int = 200) -> Timing:
    """Return how long a call takes: the median of the quietest round.

    Args:
        call: What to time.
        warm_ups: Calls before the first that counts.
        least: Calls of a round at least, however long they take.
        most: Calls of a round at most.
    """
    for _ in range(warm_ups):
        call()
    processor = time.process_time()
    rounds = [_round(call, least, most) for _ in range(ROUNDS)]
    runs = sum(len(seconds) for seconds in rounds)
    return Timing(
        median=min(statistics.median(seconds) for seconds in rounds),
        fastest=min(min(seconds) for seconds in rounds),
        processor=(time.process_time() - processor) / runs,
        runs=runs,
    )


def _round(call: Callable[[], object], least: int, most: int) -> list[float]:
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < least or (len(seconds) < most and time.perf_counter() - begun < ROUND_SECONDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
