"""Which entries a consumer processes, one after the other.

Owns: the order of reading (what a former process left, what dead workers left, what is new), and nacking.
Must not know: how an entry is answered, how its outcome is committed.
Invariant: an entry that was read ends as processed, nacked, or left to its lease; one bad entry costs no other.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from contracts import StreamNames
from contracts.codec import request_id_of
from worker.errors import GroupVanished, StreamUnavailable
from worker.retry import RetryPolicy, backoff
from worker.serving.leases import Leases
from worker.serving.request_stream import Entry, RequestStream
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.telemetry import Counters, Pulse
from worker.transport.scripts import LeaveStatus

#: What remains of the largest size and of the slowest entry, a batch or an entry later.
_FADE = 0.9
#: Longest error that is remembered for the rejection which may follow, in characters.
_ERROR_CHARACTERS = 500

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of reading and processing, from the settings."""

    batch_count: int
    block_ms: int
    lease_ms: int
    claim_interval_ms: int
    max_deliveries: int
    max_entry_bytes: int
    max_symbols: int
    retry_pause_ms: int = 1000
    #: How long a request that no living worker can answer waits for one that can.
    grace_ms: int = 0
    batch_bytes: int = 8_388_608


def limits_of(settings: Settings) -> Limits:
    """Return the bounds that the settings state."""
    return Limits(
        batch_count=settings.batch_count,
        batch_bytes=settings.batch_bytes,
        block_ms=settings.block_ms,
        lease_ms=settings.lease_ms,
        claim_interval_ms=settings.claim_interval_ms,
        max_deliveries=settings.max_deliveries,
        max_entry_bytes=settings.max_entry_bytes,
        max_symbols=settings.max_symbols,
        grace_ms=int(settings.grace_seconds * 1000),
    )


class Prefetch:
    """Adapts the number of entries to their size, since the server bounds a read by number alone."""

    def __init__(self, most: int, batch_bytes: int, entry_bytes: int) -> None:
        """Take the bounds, and the size that entries are assumed to have before any is read."""
        self._most, self._batch_bytes, self._entry_bytes = most, batch_bytes, float(entry_bytes)

    @property
    def count(self) -> int:
        """Entries to read next."""
        return max(1, min(self._most, int(self._batch_bytes / self._entry_bytes)))

    def note(self, entries: Sequence[Entry]) -> None:
        """Learn from what was read."""
        if entries:
            largest = max(sum(len(name) + len(value) for name, value in entry.pairs) for entry in entries)
            self._entry_bytes = max(float(largest), self._entry_bytes * _FADE, 1.0)


class Intake:
    """The entries of one consumer; iterating belongs to one thread."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part; none is optional
        self,
        stream: RequestStream,
        leases: Leases,
        names: StreamNames,
        limits: Limits,
        *,
        retry: RetryPolicy,
        inflight_retry: RetryPolicy,
        shutdown: Shutdown,
        paused: threading.Event,
        may_read: Callable[[], bool],
        counters: Counters,
        pulse: Pulse,
    ) -> None:
        """Take every part from the composition root.

        Args:
            stream: The consumer's commands.
            leases: Notes what is in flight.
            names: Of the namespace.
            limits: Bounds of reading.
            retry: Of reading, which ends when the worker is to stop.
            inflight_retry: Of what was read, which ends when the worker is forced.
            shutdown: When to stop, and whether there is time for one more entry.
            paused: While set, nothing is answered.
            may_read: Whether this worker is ready to answer, and not paused.
            counters: Counts deliveries.
            pulse: Shows progress.
        """
        self._stream, self._leases, self._names, self._limits = stream, leases, names, limits
        self._retry, self._inflight_retry, self._shutdown = retry, inflight_retry, shutdown
        self._paused, self._may_read, self._counters, self._pulse = paused, may_read, counters, pulse
        self._prefetch = Prefetch(limits.batch_count, limits.batch_bytes, limits.max_entry_bytes)
        self._next_claim = 0.0
        #: What is pending under this name and not in flight: of a former process at first, then of lost replies.
        self._recovering, self._former = True, True
        self._pending: Iterator[Entry] | None = None
        #: Given by other workers, not taken up yet.
        self._given: deque[str] = deque()
        self._next_given = 0.0
        #: Nacked by this process and not seen since: still pending under its name, and not to be recovered early.
        self.nacked: dict[str, float] = {}
        #: Seconds that an entry takes to compute, by those before.
        self.slowest_seconds = 0.0
        #: Entry that is being processed, empty between two.
        self.processing = ""
        self._joined = False

    def join_group(self) -> None:
        """Create the consumer group if it is missing: it must exist before the worker is announced.

        Raises:
            StreamUnavailable: The server was still unavailable when the worker stopped.
        """
        self._retry.call(self._stream.ensure_group)
        self._joined = True

    def __iter__(self) -> Iterator[Entry]:
        """Yield each entry to process until the worker is to stop; what there is no time for is nacked.

        Raises:
            StreamUnavailable: The server was unavailable when the worker was forced to stop.
        """
        try:
            # Only once: a group that was lost since is made again, and reported, by the read that misses it.
            if not self._joined:
                self.join_group()
            while not self._shutdown.stopping.is_set():
                if not self._may_read():
                    self._pulse.beat()
                    self._shutdown.stopping.wait(0.1)
                else:
                    yield from self.admit(self._retry.call(self.read))
        except StreamUnavailable:
            if self._shutdown.forced.is_set():
                raise
            # Stopped while it waited for the server: nothing is in flight.

    def read(self) -> list[Entry]:
        """Return what to process next: what was left pending, or what is new, waiting for that.

        Raises:
            StreamUnavailable: The server is unavailable; its reply may have been lost with entries in it.
        """
        try:
            # What others gave comes first: taken up as recovered, it would count as tried by a former process.
            claimed = self._next_from_others() or self._next_recovered() or self._claim_when_due()
            return [claimed] if claimed else self.read_new(self._block_ms())
        except GroupVanished as error:
            if not self.recreate_group(error):
                # Another worker was faster, or the connections lead to two servers: with a pause, not in a hot loop.
                self._stream.reconnect()
                raise StreamUnavailable(error.reason, str(error)) from error
            return []
        except StreamUnavailable:
            self._recover()
            raise

    def read_new(self, block_ms: int) -> list[Entry]:
        """Return entries that were never delivered, as many as fit into a batch, waiting for the first."""
        entries = self._stream.read(self._prefetch.count, block_ms)
        self._prefetch.note(entries)
        if entries:
            _log.debug("entries_read", entries=[entry.id for entry in entries])
        self._counters.deliveries["new"] += len(entries)
        return entries

    def admit(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Yield entries that were delivered, each in flight until the next is asked for; nack those without time."""
        if self._paused.is_set():
            # Read by a call that was under way when the pause came: nothing is answered while paused.
            for entry in entries:
                self.nack(entry, tried=False)
            return
        self._leases.add(entry.id for entry in entries)
        for entry in entries:
            self.nacked.pop(entry.id, None)
        for entry in entries:
            try:
                if self._shutdown.has_time_for(self.slowest_seconds):
                    self._pulse.beat()
                    self.processing = entry.id
                    yield entry
                    self.processing = ""
                else:
                    self.nack(entry, tried=False)
            finally:
                self._leases.discard(entry.id)

    def nack(self, entry: Entry, *, tried: bool, error: str = "") -> None:
        """Make an entry claimable again: at once, or after a pause where its processing was tried and raised."""
        limits = self._limits
        pause = backoff(entry.deliveries, first=limits.retry_pause_ms, longest=limits.lease_ms) if tried else 0
        # Before it is nacked: a renewal between the two would make it wait for a whole lease.
        self._leases.release(entry.id)

        def nack() -> None:
            with suppress(GroupVanished):  # nothing to nack: a new group delivers the entry again
                self._stream.nack(
                    entry, self._key(entry), pause_ms=int(pause), tried=tried, error=error[:_ERROR_CHARACTERS]
                )

        self._inflight_retry.call(nack)
        _log.debug("entry_nacked", entry=entry.id, tried=tried, pause_ms=int(pause))
        now, lease = time.monotonic(), limits.lease_ms / 1000
        # After a pause and a lease others have claimed it, and this process would never know.
        self.nacked = {each: at for each, at in self.nacked.items() if now - at < 2 * lease} | {entry.id: now}

    def leave(self, entry: Entry, *, heir: str, patient: bool) -> bool:
        """Leave an entry that was not tried to a worker that can answer it; False: nobody could within the grace.

        Args:
            entry: What was read.
            heir: Worker that answers it; empty: it waits for one.
            patient: Whether it waits for longer than the grace.
        """
        # As for a nack: a renewal in between would make it wait for a whole lease.
        self._leases.release(entry.id)

        def leave() -> LeaveStatus:
            try:
                return self._stream.leave_to(
                    entry, self._key(entry), heir=heir, grace_ms=None if patient else self._limits.grace_ms
                )
            except GroupVanished:
                return LeaveStatus.FENCED  # a new group delivers the entry again

        status = self._inflight_retry.call(leave)
        _log.debug("entry_left", entry=entry.id, heir=heir, status=status.value)
        if status is LeaveStatus.LEFT:
            self.nacked[entry.id] = time.monotonic()
        return status is not LeaveStatus.OVER

    def last_error(self, entry: Entry) -> str:
        """Return the last error that processing an entry raised, however long the server is unavailable."""
        return self._inflight_retry.call(lambda: self._stream.last_error(self._key(entry)))

    def recreate_group(self, error: GroupVanished) -> bool:
        """Create the group again if it is still gone, and return whether it was.

        At the stream's beginning: remembered ids absorb what was answered before, what was in flight comes again.
        """
        self._recover()
        missing = self._stream.ensure_group()
        if missing:
            _log.warning("group_recreated", detail=str(error))
        return missing

    def note_seconds(self, seconds: float) -> None:
        """Learn how long an entry takes to compute."""
        self.slowest_seconds = max(seconds, self.slowest_seconds * _FADE)

    def _recover(self) -> None:
        self._recovering, self._pending = True, None

    def _next_recovered(self) -> Entry | None:
        """Return one entry that is pending under this name and not in flight."""
        if not self._recovering:
            return None
        if self._pending is None:
            in_flight = self._leases.in_flight() | self.nacked.keys()
            self._pending = self._stream.recover(in_flight, count_again=self._former)
        entry = next(self._pending, None)
        if entry is None:
            self._recovering, self._former, self._pending = False, False, None
        else:
            self._counters.deliveries["own"] += 1
            _log.debug("entry_recovered", entry=entry.id, deliveries=entry.deliveries)
        return entry

    def _next_from_others(self) -> Entry | None:
        """Return one entry that another worker gave to this one."""
        if not self._given and time.monotonic() >= self._next_given:
            self._given.extend(self._stream.given())
            self._next_given = time.monotonic() + self._limits.claim_interval_ms / 1000
        while self._given:
            entry = self._stream.take(self._given.popleft())
            if entry is not None:
                self._counters.deliveries["given"] += 1
                _log.debug("entry_given", entry=entry.id, deliveries=entry.deliveries)
                return entry
        return None

    def _claim_when_due(self) -> Entry | None:
        if time.monotonic() < self._next_claim:
            return None
        claimed = self._stream.claim()
        while claimed is None and not self._stream.claimed_all:
            claimed = self._stream.claim()
        self._counters.deliveries["claimed"] += claimed is not None
        if claimed is not None:
            _log.debug("entry_claimed", entry=claimed.id, deliveries=claimed.deliveries)
        else:
            self._next_claim = time.monotonic() + self._limits.claim_interval_ms / 1000
        return claimed

    def _block_ms(self) -> int:
        """Return how long to wait for what is new: no longer than until overdue leases are looked for again."""
        until_claim = int((self._next_claim - time.monotonic()) * 1000)
        return max(1, min(self._limits.block_ms, until_claim))  # a block of 0 would never end

    def _key(self, entry: Entry) -> str:
        return self._names.request(request_id_of(entry.pairs, entry.default_id))
