"""The requests stream as this consumer sees it: read, recover, claim, give back.

Owns: the consumer group's commands and the type of an entry.
Must not know: what an entry means.
Invariant: every entry that was ever read is either being worked on, given back, or recovered by its consumer or
another; reading never raises a delivery count because the server was away.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from contracts import GROUP, StreamNames
from contracts.entry_ids import EntryId
from worker.transport.client import Client, pairs_of, say, text_of, translated
from worker.transport.scripts import script

Pairs = tuple[tuple[bytes, bytes], ...]

#: Most pending entries of this consumer that one look finds; far more than a batch.
_RECOVERED_AT_ONCE = 1000
#: The answer of `give_back.lua` to an entry that was cut from the stream.
_TRIMMED = 2
#: What remains of the largest size seen, a batch later: one giant slows the next reads, not all.
_FADE = 0.9

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One delivery of one entry of the requests stream."""

    id: str
    #: Field names and values in the order they came, doubled names included.
    pairs: Pairs
    #: How often it was delivered, this time included.
    deliveries: int

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
        self._give_back, self._take_own = script(commands, "give_back"), script(commands, "take_own")
        self._remove = script(commands, "remove_consumer")
        #: Of a former process of this name: entry id to its delivery count when this one first looked.
        self._inherited: dict[str, int] = {}
        self._cursor = "0-0"
        #: Entries found cut from the stream before they were answered.
        self.trimmed_pending = 0

    def ensure_group(self) -> bool:
        """Create the group at the stream's beginning, so that nothing added before the first worker is lost.

        Returns:
            Whether it was missing.
        """
        with translated():
            try:
                self._commands.xgroup_create(self._names.requests, GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
                return False
        return True

    def read(self, count: int, block_ms: int) -> list[Entry]:
        """Return entries that were never delivered, waiting for the first."""
        with translated():
            reply = say(
                self._reader, "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, "BLOCK", block_ms,
                "STREAMS", self._names.requests, ">",
            )  # fmt: skip
        return _entries(reply[0][1]) if reply else []

    def recover(self, in_hand: Iterable[str] = (), *, count_again: bool = False) -> Iterator[Entry]:
        """Yield entries pending under this consumer's name that nobody has in hand, each taken when it is asked for.

        One at a time, the least delivered first: an entry that killed its worker must neither take its neighbours
        with it again nor raise their delivery count.

        Args:
            in_hand: Ids that are being worked on.
            count_again: Raise the delivery count: a former process of this name may have died of the entry. After a
                lost reply it stays as it is, since nothing was tried.
        """
        held, inherited = set(in_hand), self._inherited
        with translated():
            pending = self._commands.xpending_range(
                self._names.requests, GROUP, min="-", max="+", count=_RECOVERED_AT_ONCE, consumername=self._consumer
            )
        rows = [(int(row["times_delivered"]), text_of(row["message_id"])) for row in pending]
        for deliveries, entry_id in sorted(rows, key=lambda row: row[0]):
            if entry_id in held:
                continue
            # Raised once from what was found first, however often a lost reply has this said again.
            least = inherited.setdefault(entry_id, deliveries) + 1 if count_again else 0
            yield from self._taken(entry_id, least)
        if count_again:
            inherited.clear()

    def claim(self) -> Entry | None:
        """Return one entry whose lease ran out, whoever held it; the next call looks further on.

        One at a time: an entry that killed its worker must not take others with it again.
        """
        if not self._anything_overdue():
            return None
        with translated():
            cursor, claimed, *deleted = say(
                self._commands, "XAUTOCLAIM", self._names.requests, GROUP, self._consumer, self._lease_ms,
                self._cursor, "COUNT", 1,
            )  # fmt: skip
            self._cursor = text_of(cursor)
            deliveries = self._deliveries(claimed[0][0]) if claimed and claimed[0] else 0
        self._note_trimmed(deleted[0] if deleted else ())
        # A server before 7.0 answers nil for an entry that was trimmed away; later ones list it in `deleted`.
        entries = _entries([row for row in claimed if row], deliveries)
        return entries[0] if entries else None

    @property
    def looked_everywhere(self) -> bool:
        """Whether the last `claim` reached the end of what is pending."""
        return self._cursor == "0-0"

    def give_back(self, entry: Entry, key: str, *, pause_ms: int, tried: bool, error: str = "") -> bool:
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
        idle = max(0, self._lease_ms - pause_ms)
        count = entry.deliveries if tried else entry.deliveries - 1
        with translated():
            given = self._give_back(
                keys=[self._names.requests, key],
                args=[GROUP, self._consumer, entry.id, idle, count, error, 24 * 3_600_000],
            )
        if int(given) == _TRIMMED:
            self._note_trimmed([entry.id.encode()])
        return int(given) == 1

    def last_error(self, key: str) -> str:
        """Return the last error of a request id, or that its workers died without one."""
        with translated():
            error = self._commands.hget(key, "last_error")
        return text_of(error) if error else "none was recorded, so each time the worker died"

    def leave(self) -> None:
        """Remove this consumer from the group if nothing is pending under its name."""
        with translated():
            # One step: a process that took the name over may be given an entry at any moment.
            self._remove(
                keys=[self._names.requests, self._names.worker(self._consumer)], args=[GROUP, self._consumer, 1]
            )

    def reconnect(self) -> None:
        """Look for the server anew: the two connections may lead to two of them, after half a failover."""
        for client in (self._reader, self._commands):
            client.connection_pool.disconnect()

    def _anything_overdue(self) -> bool:
        """Return whether any lease ran out; one command, however much is pending, so that it may be asked often."""
        with translated():
            overdue = self._commands.xpending_range(
                self._names.requests, GROUP, min="-", max="+", count=1, idle=self._lease_ms
            )
        if not overdue:
            self._cursor = "0-0"
        return bool(overdue)

    def _note_trimmed(self, entry_ids: Sequence[bytes]) -> None:
        if entry_ids:
            self.trimmed_pending += len(entry_ids)
            _log.error("entries_trimmed_while_pending", entries=[text_of(entry_id) for entry_id in entry_ids])

    def _taken(self, entry_id: str, least_deliveries: int) -> Iterator[Entry]:
        with translated():
            status, deliveries, flat = self._take_own(
                keys=[self._names.requests], args=[GROUP, self._consumer, entry_id, least_deliveries]
            )
        if status == b"trimmed":
            self._note_trimmed([entry_id.encode()])
        elif status == b"taken":
            yield Entry(id=entry_id, pairs=pairs_of(flat), deliveries=int(deliveries))

    def _deliveries(self, entry_id: bytes) -> int:
        row = self._commands.xpending_range(self._names.requests, GROUP, min=entry_id, max=entry_id, count=1)
        return int(row[0]["times_delivered"]) if row else 1


class Prefetch:
    """Adapts the number of entries to their size, since the server bounds a read by number alone."""

    def __init__(self, most: int, batch_bytes: int, entry_bytes: int) -> None:
        """Take the bounds, and the size that entries are taken to have before any is seen."""
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


def _entries(rows: Sequence[Any], deliveries: int = 1) -> list[Entry]:
    return [Entry(id=text_of(entry_id), pairs=pairs_of(flat), deliveries=deliveries) for entry_id, flat in rows]
