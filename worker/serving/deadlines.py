"""Deadlines of requests that no worker reads.

Owns: finding them on the stream, unread or pending, and rejecting them without reading them.
Must not know: why nobody reads.
Invariant: the outcome is remembered under the request id as every other one is, so whoever reads the entry later only
acknowledges it; a look costs one bounded read.
"""

from collections.abc import Callable
from datetime import datetime

import structlog

from contracts import GROUP, StreamNames
from contracts.codec import decode_request, encode
from contracts.entry_ids import EntryId
from contracts.errors import ContractError
from worker.errors import DeadlineExceeded, StreamUnavailable
from worker.serving.committer import purpose_of, request_fingerprint
from worker.serving.intake import Limits
from worker.serving.rejections import rejection_of
from worker.serving.request_stream import Entry
from worker.transport.client import Client, pairs_of, text_of
from worker.transport.scripts import RejectExpired

#: Most entries that one look reads; the next one goes on from there.
LOOKED_AT_ONCE = 1000

_log = structlog.get_logger()


class Deadlines:
    """Belongs to the consumer's thread, as does its connection."""

    def __init__(
        self,
        commands: Client,
        names: StreamNames,
        worker: str,
        limits: Limits,
        *,
        dedupe_seconds: int,
        clock: Callable[[], datetime],
    ) -> None:
        """Take every part from the composition root."""
        self._commands, self._names, self._worker, self._limits = commands, names, worker, limits
        self._dedupe_ms, self._clock = dedupe_seconds * 1000, clock
        #: Where the next look begins; empty: at the first entry that is not acknowledged.
        self._cursor = ""
        #: Requests rejected here so far.
        self.rejected = 0

    def sweep(self) -> None:
        """Reject the next entries whose deadline has passed by the server's clock.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        start = self._cursor or self._first()
        rows = self._commands.execute_command("XRANGE", self._names.requests, start, "+", "COUNT", LOOKED_AT_ONCE)
        now = self._commands.server_time() if rows else None
        for entry_id, flat in rows:
            partition = self._names.partition
            entry = Entry(id=text_of(entry_id), pairs=pairs_of(flat), deliveries=1, partition=partition)
            deadline = self._deadline(entry)
            if now is not None and deadline is not None and now > deadline:
                self._reject(entry, deadline, now)
        self._cursor = f"({text_of(rows[-1][0])}" if len(rows) == LOOKED_AT_ONCE else ""

    def _first(self) -> str:
        """Return where entries begin that the group has not acknowledged, or has not read."""
        try:
            groups = self._commands.xinfo_groups(self._names.requests)
            pending = self._commands.xpending(self._names.requests, GROUP)
        except StreamUnavailable as error:
            if error.reason == "NOGROUP" or "no such key" in str(error):
                return "-"
            raise
        read = next((text_of(row["last-delivered-id"]) for row in groups if text_of(row["name"]) == GROUP), "0-0")
        oldest = text_of(pending["min"]) if pending["pending"] else ""
        return oldest if oldest and EntryId.parse(oldest) < EntryId.parse(read) else f"({read}"

    def _deadline(self, entry: Entry) -> datetime | None:
        if not any(name == b"deadline" for name, _ in entry.pairs):
            return None
        try:
            request = decode_request(
                entry.pairs,
                entry.default_id,
                max_bytes=self._limits.max_entry_bytes,
                max_symbols=self._limits.max_symbols,
            )
        except ContractError:
            return None  # whoever reads it rejects it
        return request.deadline

    def _reject(self, entry: Entry, deadline: datetime, now: datetime) -> None:
        error = DeadlineExceeded(
            f"the deadline {deadline.isoformat()} has passed, now is {now.isoformat()}; no worker was ready to read it"
        )
        rejection = rejection_of(entry, error, worker=self._worker, now=self._clock())
        rejected = self._commands.run(
            RejectExpired(
                rejections=self._names.rejections,
                request=self._names.request(rejection.request_id),
                consumer=self._worker,
                entry_id=entry.id,
                remember_ms=self._dedupe_ms,
                deadline_ms=int(deadline.timestamp() * 1000),
                fingerprint=request_fingerprint(entry),
                purpose=purpose_of(entry),
                outcome=[text for pair in encode(rejection).items() for text in pair],
            )
        )
        if rejected:
            self.rejected += 1
            _log.info("request_expired_unread", request_id=rejection.request_id, entry=entry.id)
