"""A backlog worked through by one worker: how long it takes, and what it costs in memory.

Owns: the requests that lie there before the worker starts, and when its memory is looked at.
Must not know: how servers and workers are started.
Invariant: every request has its outcome before the measurement ends; the memory is that of the worker alone.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import psutil

from contracts import StreamNames
from tests.benchmarks.children import ChildFailed
from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds
from worker.transport.client import Client

#: Requests added in one round trip.
_PIECE = 10_000
#: What the worker may grow by after the first tenth, in bytes: batches and counters have their sizes by then.
GROWTH = 16 * 2**20
#: Longest time without a new outcome, in seconds.
_STILL_SECONDS = 60.0
_LOOK_SECONDS = 0.5


def backlog_figure(
    server: Client,
    names: StreamNames,
    symbols: tuple[str, ...],
    requests: int,
    start: Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]],
) -> Figure:
    """Return how fast a backlog is worked through, and the worker's memory from the first tenth of it to the end.

    Raises:
        ChildFailed: The worker stopped answering.
    """
    fields = {"strategy": "alpha_baseline", "symbols": ",".join(symbols)}
    for first in range(0, requests, _PIECE):
        with server.pipeline(transaction=False) as pipe:
            for _ in range(min(_PIECE, requests - first)):
                pipe.xadd(names.requests, fields)  # type: ignore[arg-type]  # the driver's dict is invariant
            pipe.execute()
    before = _outcomes(server, names)
    with start() as child:
        begun = time.perf_counter()
        process = psutil.Process(child.pid)
        early = late = most = 0
        done, moved_at = 0, begun
        while done < requests:
            time.sleep(_LOOK_SECONDS)
            seen, now = _outcomes(server, names) - before, time.perf_counter()
            moved_at = now if seen > done else moved_at
            if now - moved_at > _STILL_SECONDS:
                raise ChildFailed(f"of a backlog of {requests:,} requests {requests - seen:,} stayed unanswered")
            done, late = seen, _resident(process)
            most = max(most, late)
            if not early and done >= requests / 10:
                early = late
        taken = time.perf_counter() - begun
    return Figure(
        work=f"backlog of {requests:,} requests, {len(symbols)} symbols, one worker",
        value=f"{requests / taken:,.0f} requests/s, {spell_seconds(taken)}; worker memory {spell_bytes(early)} after a"
        f" tenth, {spell_bytes(late)} at the end, most {spell_bytes(most)}",
        goal=f"grows by {spell_bytes(GROWTH)} at most",
        met=most - early <= GROWTH,
    )


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _outcomes(server: Client, names: StreamNames) -> int:
    return int(server.xlen(names.results)) + int(server.xlen(names.rejections))
