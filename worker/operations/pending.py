"""Requests that wait or are being worked on, and what is remembered of a request id.

Owns: one row a pending entry, beside the heartbeat of its consumer; one page a request id; what is not delivered yet.
Must not know: how they are shown.
Invariant: only reads; looking never changes who owns what.
"""

from dataclasses import dataclass
from typing import Any

from contracts import GROUP, ContractError, Heartbeat, Rejection, SignalVector, StreamNames
from contracts.codec import decode, request_id_of
from contracts.entry_ids import EntryId
from worker.errors import GroupVanished, StreamUnavailable
from worker.transport.client import Client, pairs_of, text_of

#: Entries read at once.
PAGE = 1000
#: Pending entries, and entries that are not delivered yet, that a search for one request looks through.
PENDING_SEARCHED, WAITING_SEARCHED = 1000, 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One consumer, and its heartbeat."""

    name: str
    #: State of its heartbeat; `gone` where it beats no more.
    state: str
    #: Milliseconds since its last heartbeat, by the server's clock.
    beaten_ms_ago: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """One entry that was delivered and has no outcome yet."""

    entry_id: str
    request_id: str
    holder: Holder
    #: Milliseconds since it was delivered, or its lease renewed.
    idle_ms: int
    #: Milliseconds since its producer added it.
    age_ms: int
    #: How often it was delivered.
    deliveries: int
    last_error: str
    #: Whether the entry was cut from the stream while it was pending.
    trimmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingList:
    """What is pending, longest idle first."""

    #: All of it, also what is not among `requests`.
    total: int
    #: Entries that nobody has read yet; None where the server cannot say.
    unread: int | None
    requests: tuple[PendingRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRequest:
    """An entry that no consumer of the group was given yet."""

    entry_id: str
    #: Milliseconds since its producer added it.
    age_ms: int
    #: Entries that are delivered before it.
    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """All that is known of one request id."""

    request_id: str
    #: The remembered hash; empty where nothing is remembered.
    remembered: dict[str, str]
    #: Milliseconds until it is forgotten; None where nothing is remembered, or nothing is ever forgotten.
    forgotten_in_ms: int | None
    outcome: SignalVector | Rejection | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlace:
    """Where a request is: at most one of the three is there."""

    record: RequestRecord
    #: Its entry, where it was delivered and has no outcome yet.
    claimed: PendingRequest | None
    #: Its entry, where it was not delivered yet.
    waiting: WaitingRequest | None
    #: Whether a search ended before the last entry, so that an entry which was not found may be there.
    incomplete: bool

    @property
    def answered(self) -> bool:
        """Whether the request has its outcome, whether or not that is still on its stream."""
        return "entry" in self.record.remembered


class Requests:
    """The requests stream of one namespace as an operator sees it; not safe to share between threads."""

    def __init__(self, client: Client, names: StreamNames) -> None:
        """Take a connection that does not block."""
        self._client, self._names = client, names

    def pending(self, *, limit: int = 100) -> PendingList:
        """Return what is pending.

        Args:
            limit: Most entries looked at, the oldest first.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        unread = self._unread()
        try:
            rows = self._client.xpending_range(self._names.requests, GROUP, min="-", max="+", count=limit)
            total = int(self._client.xpending(self._names.requests, GROUP)["pending"])
        except GroupVanished:
            return PendingList(total=0, unread=unread, requests=())
        now = self._now()
        holders = {name: self._holder(name, now) for name in sorted({text_of(row["consumer"]) for row in rows})}
        found = [self._pending(row, holders, now) for row in rows]
        return PendingList(total=total, unread=unread, requests=tuple(sorted(found, key=lambda one: -one.idle_ms)))

    def record(self, request_id: str) -> RequestRecord:
        """Return all that is known of a request id.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        key = self._names.request(request_id)
        fields = self._client.execute_command("HGETALL", key)
        left = int(self._client.pttl(key))
        remembered = {text_of(name): _shown(value) for name, value in fields.items()}
        return RequestRecord(
            request_id=request_id,
            remembered=remembered,
            forgotten_in_ms=left if left >= 0 else None,
            outcome=self._outcome(remembered),
        )

    def find(self, request_id: str) -> RequestPlace:
        """Return where a request is.

        Args:
            request_id: As the producer chose it, or the entry id of the request.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        place = self._find(request_id)
        if place.answered or place.claimed or place.waiting:
            return place
        # It may have been delivered between the two looks.
        return self._find(request_id)

    def _find(self, request_id: str) -> RequestPlace:
        pending = self.pending(limit=PENDING_SEARCHED)
        claimed = next((one for one in pending.requests if one.request_id == request_id), None)
        waiting, whole = (None, True) if claimed else self._waiting(request_id)
        # Last, as it may have been answered meanwhile.
        record = self.record(request_id)
        return RequestPlace(
            record=record,
            claimed=claimed,
            waiting=waiting,
            incomplete=not whole or pending.total > PENDING_SEARCHED,
        )

    def _waiting(self, request_id: str) -> tuple[WaitingRequest | None, bool]:
        """Return the first entry of a request that is not delivered yet, and whether all of them were looked at."""
        after, seen = self._last_delivered(), 0
        while seen < WAITING_SEARCHED:
            rows = self._client.execute_command("XRANGE", self._names.requests, f"({after}", "+", "COUNT", PAGE)
            for raw_id, flat in rows:
                after = text_of(raw_id)
                if request_id_of(pairs_of(flat), self._names.default_id(after)) == request_id:
                    age_ms = max(0, self._now() - EntryId.parse(after).ms)
                    return WaitingRequest(entry_id=after, age_ms=age_ms, ahead=seen), True
                seen += 1
            if len(rows) < PAGE:
                return None, True
        return None, False

    def _last_delivered(self) -> str:
        """Return the last entry id that the group was given; without a group, one before every entry."""
        group = next((one for one in self._groups() if text_of(one["name"]) == GROUP), None)
        return text_of(group["last-delivered-id"]) if group else "0-0"

    def _groups(self) -> list[dict[str, Any]]:
        try:
            groups: list[dict[str, Any]] = self._client.xinfo_groups(self._names.requests)
        except StreamUnavailable as error:
            if error.reason != "ResponseError":  # "no such key": nothing was ever requested
                raise
            return []
        return groups

    def _pending(self, row: dict[str, Any], holders: dict[str, Holder], now: int) -> PendingRequest:
        entry_id = text_of(row["message_id"])
        entries = self._client.execute_command("XRANGE", self._names.requests, entry_id, entry_id, "COUNT", 1)
        default_id = self._names.default_id(entry_id)
        request_id = request_id_of(pairs_of(entries[0][1]), default_id) if entries else default_id
        error = self._client.execute_command("HGET", self._names.request(request_id), "last_error")
        return PendingRequest(
            entry_id=entry_id,
            request_id=request_id,
            holder=holders[text_of(row["consumer"])],
            idle_ms=int(row["time_since_delivered"]),
            age_ms=max(0, now - EntryId.parse(entry_id).ms),
            deliveries=int(row["times_delivered"]),
            last_error=_shown(error) if error else "",
            trimmed=not entries,
        )

    def _holder(self, name: str, now: int) -> Holder:
        fields = self._client.execute_command("HGETALL", self._names.worker(name))
        if not fields:
            return Holder(name=name, state="gone")
        try:
            beat = decode(Heartbeat, tuple(fields.items()))
        except ContractError as error:
            return Holder(name=name, state="unreadable", reason=str(error))
        ago = max(0, now - int(beat.beaten_at.timestamp() * 1000))
        return Holder(name=name, state=beat.state.value, beaten_ms_ago=ago, reason=beat.reason)

    def _unread(self) -> int | None:
        length = int(self._client.xlen(self._names.requests))
        mine = [group for group in self._groups() if text_of(group["name"]) == GROUP]
        lag = mine[0].get("lag") if mine else length
        return None if lag is None else int(lag)

    def _outcome(self, remembered: dict[str, str]) -> SignalVector | Rejection | None:
        stream, entry = remembered.get("stream"), remembered.get("entry")
        if stream is None or entry is None:
            return None
        rows = self._client.execute_command("XRANGE", stream, entry, entry, "COUNT", 1)
        if not rows:
            return None
        pairs = pairs_of(rows[0][1])
        return decode(SignalVector, pairs) if remembered["state"] == "done" else decode(Rejection, pairs)

    def _now(self) -> int:
        return int(self._client.server_time().timestamp() * 1000)


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", errors="backslashreplace")
