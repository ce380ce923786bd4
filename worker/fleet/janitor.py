"""The janitor: cuts streams, removes consumers that nobody is.

Owns: which streams are cut at which age, what is reported of groups that prevent a cut, whose turn it is.
Must not know: what entries mean.
Invariant: nothing is cut that a group has not acknowledged, and a group that prevents a cut is reported before it.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from contracts import GROUP, FleetEventType, StreamNames
from worker.errors import StreamUnavailable
from worker.events import Events
from worker.retry import RetryPolicy
from worker.service import Service
from worker.shutdown import Shutdown
from worker.transport.client import Client
from worker.transport.scripts import RemoveConsumer, TrimStream

#: Most entries that one call cuts: the server does nothing else during it.
CUT_AT_ONCE = 10_000

_HOUR_MS = 3_600_000
#: The server's error for a write that it has no memory for.
_FULL = "OOM"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long one stream is kept."""

    stream: str
    hours: float
    #: Group without which nothing is cut; empty: a stream without groups is cut by age alone.
    needs_group: str = ""


def retentions(names: StreamNames, hours: Mapping[str, float]) -> tuple[Retention, ...]:
    """Return the retention of every stream of a namespace.

    Args:
        names: Keys of the namespace.
        hours: Stream (`requests`, `results`, …) to hours.
    """
    # Requests outlive their group's absence (it was destroyed, or no worker ever came): they are not answered yet.
    groups = {"requests": GROUP}
    return tuple(
        Retention(stream=getattr(names, stream), hours=kept, needs_group=groups.get(stream, ""))
        for stream, kept in hours.items()
    )


class Janitor:
    """One worker's share of the fleet's housekeeping; belongs to one thread, as does its connection."""

    def __init__(
        self,
        commands: Client,
        names: StreamNames,
        worker: str,
        *,
        retentions: Iterable[Retention],
        events: Events,
        interval_seconds: float,
    ) -> None:
        """Take the janitor thread's connection."""
        self._commands, self._names, self._worker = commands, names, worker
        self._retentions, self._events, self._interval_seconds = tuple(retentions), events, interval_seconds
        #: Stream to entries that this worker cut.
        self.trimmed: Counter[str] = Counter()
        self.removed = 0
        #: `(stream, group)` that prevented a cut when this worker last looked; empty while another has the turn.
        self.behind: frozenset[tuple[str, str]] = frozenset()

    def turn(self, stop: threading.Event) -> bool:
        """Clean up if it is this worker's turn.

        Returns:
            Whether it was: at most one worker has it at a time, and for no longer than an interval unless renewed.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        try:
            if not self._mine():
                self.behind = frozenset()
                return False
            self._report(frozenset(self._look()))
        except StreamUnavailable as error:
            if error.reason == _FULL:
                # A full server takes no turn and no report, but it cuts, and so has room again.
                self._cut_all(stop)
            raise
        self._cut_all(stop)
        self._remove_consumers()
        return True

    def _mine(self) -> bool:
        # Never released: it ends by the server's clock, so that the fleet sweeps once an interval.
        mine = self._commands.set(
            self._names.janitor, self._worker, nx=True, px=max(1, int(self._interval_seconds * 900))
        )
        return bool(mine)

    def _cut_all(self, stop: threading.Event) -> None:
        for retention in self._retentions:
            self._cut(retention, stop)

    def _look(self) -> Iterable[tuple[str, str]]:
        for retention in self._retentions:
            _, behind = self._call(retention, 0)
            for group in behind:
                yield retention.stream, _text(group)

    def _report(self, behind: frozenset[tuple[str, str]]) -> None:
        """Report which groups fell behind or caught up since the fleet's last report."""
        known = {_text(member) for member in self._commands.smembers(self._names.behind)}
        now = {f"{stream}|{group}" for stream, group in behind}
        for member in sorted(now ^ known):
            stream, _, group = member.partition("|")
            late = member in now
            what = "has not acknowledged entries older than their retention; they are kept"
            kind = FleetEventType.GROUP_BEHIND if late else FleetEventType.GROUP_CAUGHT_UP
            reason = f"group {group} of {stream} {what if late else 'holds no cut up any more'}"
            (_log.warning if late else _log.info)(kind.value.replace(".", "_"), stream=stream, group=group)
            if not self._events.emit(kind, reason=reason[:2000]):
                continue  # the next turn reports it
            # After the report: a janitor that dies between the two leaves it to the next one.
            (self._commands.sadd if late else self._commands.srem)(self._names.behind, member)
        self.behind = behind

    def _cut(self, retention: Retention, stop: threading.Event) -> None:
        gone = cut = self._call(retention, CUT_AT_ONCE)[0]
        while cut and not stop.is_set():
            cut = self._call(retention, CUT_AT_ONCE)[0]
            gone += cut
        if gone:
            self.trimmed[retention.stream] += gone
            _log.info("stream_trimmed", stream=retention.stream, entries=gone, hours=retention.hours)

    def _call(self, retention: Retention, limit: int) -> tuple[int, list[bytes]]:
        return self._commands.run(
            TrimStream(
                stream=retention.stream,
                retention_ms=int(retention.hours * _HOUR_MS),
                limit=limit,
                needs_group=retention.needs_group,
            )
        )

    def _remove_consumers(self) -> None:
        if not self._commands.exists(self._names.requests):
            return
        groups = {group["name"] for group in self._commands.xinfo_groups(self._names.requests)}
        if GROUP.encode() not in groups:
            return
        consumers = self._commands.xinfo_consumers(self._names.requests, GROUP)
        for name in (consumer["name"].decode(errors="surrogateescape") for consumer in consumers):
            if name != self._worker:
                self._remove_consumer(name)

    def _remove_consumer(self, name: str) -> None:
        raw = name.encode(errors="surrogateescape")
        removed = self._commands.run(
            RemoveConsumer(
                requests=self._names.requests,
                heartbeat=self._names.worker("").encode() + raw,
                group=GROUP,
                consumer=raw,
                leaves=0,
            )
        )
        if removed:
            self.removed += 1
            shown = raw.decode(errors="backslashreplace")
            _log.info("consumer_removed", consumer=shown)
            self._events.emit(FleetEventType.CONSUMER_REMOVED, reason=f"{shown} held nothing and beat no more"[:2000])


class JanitorThread(Service):
    """Takes the janitor's turn at an interval until the worker stops."""

    def __init__(self, janitor: Janitor, retry: RetryPolicy, shutdown: Shutdown, *, interval_seconds: float) -> None:
        """Take a janitor that belongs to this thread from now on."""
        super().__init__("janitor", shutdown)
        self._janitor, self._retry, self._interval_seconds = janitor, retry, interval_seconds

    def serve(self) -> None:
        """Take a turn at once and then at every interval, jittered so that workers do not all ask together."""
        stopping = self._shutdown.stopping
        while not stopping.is_set():
            self._retry.call(lambda: self._janitor.turn(stopping))
            stopping.wait(self._interval_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
