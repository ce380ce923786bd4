"""The requests stream as one consumer sees it: read, take up again, claim, nack.

Owns: the consumer group's commands and the type of an entry.
Must not know: what an entry means.
Invariant: every entry that was ever read is in flight, nacked, or taken up again by its consumer or another; an
unavailable server never raises a delivery count.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from contracts import GROUP, StreamNames
from contracts.entry_ids import EntryId
from worker.errors import StreamUnavailable
from worker.transport.client import Client, pairs_of, text_of
from worker.transport.scripts import Leave, LeaveStatus, Nack, NackStatus, RemoveConsumer, TakeOwn, TakeStatus

Pairs = tuple[tuple[bytes, bytes], ...]

#: Most pending entries of this consumer that one listing returns; far more than a batch.
_RECOVERED_AT_ONCE = 1000
#: Most entries that were given by others and are taken up at once.
_TAKEN_AT_ONCE = 1000
#: Least pause until an entry that nobody can answer is claimed again, in milliseconds.
_LEFT_PAUSE_MS = 1000
#: How long the last error of an entry is remembered, in milliseconds.
_ERROR_MS = 24 * 3_600_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One delivery of one entry of the requests stream."""

    id: str
    #: Field names and values in the order they came, doubled names included.
    pairs: Pairs
    #: How often it was delivered, this time included.
    deliveries: int
    #: Of the stream that it is on; empty: none.
    partition: str = ""

    @property
    def default_id(self) -> str:
        """Request id of the entry where its producer gave it none."""
        return StreamNames(partition=self.partition).default_id(self.id)

    @property
    def added_ms(self) -> int:
        """Server time at which the producer added it, in epoch milliseconds."""
        return EntryId.parse(self.id).ms


class RequestStream:
    """The commands of one consumer on the requests stream; not safe to share between threads."""

    def __init__(self, reader: Client, commands: Client, names: StreamNames, consumer: str, *, lease_ms: int) -> None:
        """Take one connection that may block and one that may not."""
        self._reader, self._commands, self._names = reader, commands, names
        self._consumer, self._lease_ms = consumer, lease_ms
        #: Of a former process of this name: entry id to its delivery count when this one first listed it.
        self._inherited: dict[str, int] = {}
        self._cursor = "0-0"
        #: Entries that were cut from the stream before they were answered.
        self.trimmed_pending = 0

    def ensure_group(self) -> bool:
        """Create the group at the stream's beginning, so that nothing added before the first worker is lost.

        Returns:
            Whether it was missing.
        """
        try:
            self._commands.xgroup_create(self._names.requests, GROUP, id="0", mkstream=True)
        except StreamUnavailable as error:
            if error.reason != "BUSYGROUP":
                raise
            return False
        return True

    def read(self, count: int, block_ms: int) -> list[Entry]:
        """Return entries that were never delivered, waiting for the first."""
        reply = self._reader.execute_command(
            "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, "BLOCK", block_ms,
            "STREAMS", self._names.requests, ">",
        )  # fmt: skip
        return self._entries(reply[0][1]) if reply else []

    def recover(self, in_flight: Iterable[str] = (), *, count_again: bool = False) -> Iterator[Entry]:
        """Yield entries pending under this consumer's name that are not in flight, each taken up when it is asked for.

        One at a time, the least delivered first: an entry that killed its worker must neither take its neighbours
        with it again nor raise their delivery count.

        Args:
            in_flight: Ids to leave out.
            count_again: Raise the delivery count: a former process of this name may have died of the entry. After a
                lost reply it stays as it is, since nothing was tried.
        """
        left_out, inherited = set(in_flight), self._inherited
        pending = self._commands.xpending_range(
            self._names.requests, GROUP, min="-", max="+", count=_RECOVERED_AT_ONCE, consumername=self._consumer
        )
        rows = [(int(row["times_delivered"]), text_of(row["message_id"])) for row in pending]
        for deliveries, entry_id in sorted(rows, key=lambda row: row[0]):
            if entry_id in left_out:
                continue
            # Raised once from the count listed first, however often a lost reply has this repeated.
            least = inherited.setdefault(entry_id, deliveries) + 1 if count_again else 0
            yield from self._taken(entry_id, least)
        if count_again:
            inherited.clear()

    def claim(self) -> Entry | None:
        """Return one entry whose lease ran out, whoever owned it; the next call starts behind it.

        One at a time: an entry that killed its worker must not take others with it again.
        """
        if not self._anything_overdue():
            return None
        cursor, claimed, *deleted = self._commands.execute_command(
            "XAUTOCLAIM", self._names.requests, GROUP, self._consumer, self._lease_ms, self._cursor, "COUNT", 1
        )
        self._cursor = text_of(cursor)
        deliveries = self._deliveries(claimed[0][0]) if claimed and claimed[0] else 0
        self._note_trimmed([text_of(entry_id) for entry_id in (deleted[0] if deleted else ())])
        # A server before 7.0 answers nil for an entry that was trimmed; later ones list it in `deleted`.
        entries = self._entries([row for row in claimed if row], deliveries)
        return entries[0] if entries else None

    @property
    def claimed_all(self) -> bool:
        """Whether the last `claim` reached the end of what is pending."""
        return self._cursor == "0-0"

    def nack(self, entry: Entry, key: str, *, pause_ms: int, tried: bool, error: str = "") -> bool:
        """Make an entry claimable by any worker, at once or after a pause.

        Args:
            entry: What was read.
            key: Hash of its request id.
            pause_ms: Time until it may be claimed.
            tried: Whether its processing was tried, which costs a delivery.
            error: The last error, kept for the rejection that may follow.

        Returns:
            Whether this consumer still owned it.
        """
        status = self._commands.run(
            Nack(
                requests=self._names.requests,
                request=key,
                group=GROUP,
                consumer=self._consumer,
                entry_id=entry.id,
                idle_ms=max(0, self._lease_ms - pause_ms),
                deliveries=entry.deliveries if tried else entry.deliveries - 1,
                error=error,
                remember_ms=_ERROR_MS,
            )
        )
        if status is NackStatus.TRIMMED:
            self._note_trimmed([entry.id])
        return status is NackStatus.NACKED

    def leave_to(self, entry: Entry, key: str, *, heir: str, grace_ms: int | None) -> LeaveStatus:
        """Leave an entry without costing it a delivery; returns what the server did with it.

        Args:
            entry: What was read.
            key: Hash of its request id.
            heir: Worker that can answer it; empty: any that can after a pause.
            grace_ms: How long it is left without an heir; None: for as long as it takes.
        """
        status = self._commands.run(
            Leave(
                requests=self._names.requests,
                request=key,
                given=self._names.given(heir),
                group=GROUP,
                consumer=self._consumer,
                entry_id=entry.id,
                heir=heir,
                lease_ms=self._lease_ms,
                deliveries=entry.deliveries,
                pause_ms=min(_LEFT_PAUSE_MS, self._lease_ms),
                grace_ms="" if grace_ms is None else grace_ms,
                remember_ms=_ERROR_MS,
            )
        )
        if status is LeaveStatus.TRIMMED:
            self._note_trimmed([entry.id])
        return status

    def given(self) -> list[str]:
        """Return the ids of entries that others gave to this consumer since the last call."""
        found = self._commands.execute_command("SPOP", self._names.given(self._consumer), _TAKEN_AT_ONCE)
        return sorted(map(text_of, found), key=EntryId.parse)

    def take(self, entry_id: str) -> Entry | None:
        """Return an entry that is pending under this consumer's name; None: it is no more."""
        return next(self._taken(entry_id, 0), None)

    def last_error(self, key: str) -> str:
        """Return the last error of a request id, or that its workers died without one."""
        error = self._commands.hget(key, "last_error")
        return text_of(error) if error else "none was recorded, so each time the worker died"

    def leave(self) -> None:
        """Remove this consumer from the group if nothing is pending under its name."""
        # One step: a process that took the name over may be delivered an entry at any moment.
        self._commands.run(
            RemoveConsumer(
                requests=self._names.requests,
                heartbeat=self._names.worker(self._consumer),
                group=GROUP,
                consumer=self._consumer,
                leaves=1,
            )
        )

    def reconnect(self) -> None:
        """Connect anew: after half a failover the two connections may lead to two servers."""
        for client in (self._reader, self._commands):
            client.connection_pool.disconnect()

    def _anything_overdue(self) -> bool:
        """Return whether any lease ran out; one command, however much is pending, so that it may be asked often."""
        overdue = self._commands.xpending_range(
            self._names.requests, GROUP, min="-", max="+", count=1, idle=self._lease_ms
        )
        if not overdue:
            self._cursor = "0-0"
        return bool(overdue)

    def _note_trimmed(self, entry_ids: Sequence[str]) -> None:
        if entry_ids:
            self.trimmed_pending += len(entry_ids)
            _log.error("entries_trimmed_while_pending", entries=list(entry_ids))

    def _taken(self, entry_id: str, least_deliveries: int) -> Iterator[Entry]:
        status, deliveries, flat = self._commands.run(
            TakeOwn(
                requests=self._names.requests,
                group=GROUP,
                consumer=self._consumer,
                entry_id=entry_id,
                least_deliveries=least_deliveries,
            )
        )
        if status is TakeStatus.TRIMMED:
            self._note_trimmed([entry_id])
        elif status is TakeStatus.TAKEN:
            yield self._entry(entry_id, flat, deliveries)

    def _deliveries(self, entry_id: bytes) -> int:
        row = self._commands.xpending_range(self._names.requests, GROUP, min=entry_id, max=entry_id, count=1)
        return int(row[0]["times_delivered"]) if row else 1

    def _entries(self, rows: Sequence[Any], deliveries: int = 1) -> list[Entry]:
        return [self._entry(text_of(entry_id), flat, deliveries) for entry_id, flat in rows]

    def _entry(self, entry_id: str, flat: Sequence[bytes], deliveries: int) -> Entry:
        partition = self._names.partition
        return Entry(id=entry_id, pairs=pairs_of(flat), deliveries=deliveries, partition=partition)
