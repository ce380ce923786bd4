"""How a call is timed: warm-up, repeats, the middle one.

Owns: `Timing` and the clock.
Must not know: what is timed.
Invariant: the figure is the median; beside it stands the fastest, which a busy machine spoils last.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds that one figure may take, beyond its least number of runs.
BUDGET_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Wall time of a call, in seconds."""

    median: float
    fastest: float
    runs: int


def timed(call: Callable[[], object], *, warm_ups: int = 3, least: int = 5, most: int = 200) -> Timing:
    """Return how long a call takes.

    Args:
        call: What to time.
        warm_ups: Calls before the first that counts.
        least: Calls that count at least, however long they take.
        most: Calls that count at most.
    """
    for _ in range(warm_ups):
        call()
    seconds: list[float] = []
    begun = time.perf_counter()
    while len(seconds) < least or (len(seconds) < most and time.perf_counter() - begun < BUDGET_SECONDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return Timing(median=statistics.median(seconds), fastest=min(seconds), runs=len(seconds))
