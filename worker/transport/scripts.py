"""Scripts that run on the stream server: the files of `lua/`, each declared once.

Owns: the keys and arguments of each script by name and in their order, and the type of its reply.
Must not know: connections, who calls a script and why.
Invariant: the header of each file names the same keys and arguments in the same order, as a test compares; a script is
one step for every other client of the server.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from worker.transport.script import Key, Rest, Script, Text

__all__ = ["Script"]


class CommitStatus(StrEnum):
    """What the server did with an outcome."""

    COMMITTED = "committed"
    #: The request id has an outcome already; the entry was only acknowledged.
    DUPLICATE = "duplicate"
    #: Likewise, and that outcome answers a different question: two producers used one id.
    CONFLICT = "conflict"
    #: Another consumer owns the entry; nothing was written.
    FENCED = "fenced"
    #: The deadline passed; nothing was written.
    LATE = "late"
    #: No outcome was given, and the request id has none; nothing was written.
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class CommitOutcome(Script[tuple[CommitStatus, str]]):
    """Publish the one outcome of a request; returns the status and the outcome's entry id (empty: none)."""

    name = "commit_outcome"

    requests: Key
    outcomes: Key
    request: Key
    group: str
    consumer: str
    entry_id: str
    state: str
    remember_ms: int
    #: Epoch milliseconds; empty: no deadline.
    deadline_ms: int | str
    fingerprint: str
    #: `trade` or `probe`, as the request states it.
    purpose: str = "trade"
    #: Approximate length at which the stream of the outcome is cut; empty: not by this script.
    most: int | str = ""
    #: Field, value, field, value, … of the outcome; none asks whether one is needed.
    outcome: Rest

    @staticmethod
    def reply(raw: Any) -> tuple[CommitStatus, str]:  # noqa: ANN401
        """Return the status and the outcome's entry id."""
        return CommitStatus(raw[0].decode()), raw[1].decode()


class NackStatus(StrEnum):
    """What the server did with an entry that its consumer gave up."""

    NACKED = "nacked"
    #: Another consumer owns the entry; nothing was written.
    FENCED = "fenced"
    #: It was cut from the stream meanwhile, so that nobody can have it; it is pending no more.
    TRIMMED = "trimmed"


@dataclass(frozen=True, kw_only=True)
class Nack(Script[NackStatus]):
    """Make one entry claimable by any consumer, at once or after a pause."""

    name = "nack"
    _STATUS: ClassVar = {0: NackStatus.FENCED, 1: NackStatus.NACKED, 2: NackStatus.TRIMMED}

    requests: Key
    request: Key
    group: str
    consumer: str
    entry_id: str
    #: The lease: claimable now; the lease less a pause: claimable after the pause.
    idle_ms: int
    deliveries: int
    #: Empty: none.
    error: str
    remember_ms: int

    @staticmethod
    def reply(raw: Any) -> NackStatus:  # noqa: ANN401
        """Return the status."""
        return Nack._STATUS[int(raw)]


class LeaveStatus(StrEnum):
    """What the server did with an entry that its consumer cannot answer."""

    #: Another worker owns it, which can.
    GIVEN = "given"
    #: Any worker may claim it after a pause.
    LEFT = "left"
    #: It has been left for longer than the grace, and is this consumer's still.
    OVER = "over"
    #: Another consumer owns the entry; nothing was written.
    FENCED = "fenced"
    #: It was cut from the stream meanwhile; it is pending no more.
    TRIMMED = "trimmed"


@dataclass(frozen=True, kw_only=True)
class Leave(Script[LeaveStatus]):
    """Leave one entry to a worker that can answer it, or for a while to whoever can by then."""

    name = "leave"

    requests: Key
    request: Key
    given: Key
    group: str
    consumer: str
    entry_id: str
    #: Empty: none is known.
    heir: str
    lease_ms: int
    deliveries: int
    pause_ms: int
    #: Empty: as long as it takes.
    grace_ms: int | str
    remember_ms: int

    @staticmethod
    def reply(raw: Any) -> LeaveStatus:  # noqa: ANN401
        """Return the status."""
        return LeaveStatus(raw.decode())


@dataclass(frozen=True, kw_only=True)
class RejectExpired(Script[bool]):
    """Reject a request whose deadline passed unread; returns whether it was rejected now."""

    name = "reject_expired"

    rejections: Key
    request: Key
    consumer: str
    entry_id: str
    remember_ms: int
    #: Epoch milliseconds.
    deadline_ms: int
    fingerprint: str
    purpose: str
    #: Field, value, field, value, … of the rejection.
    outcome: Rest

    @staticmethod
    def reply(raw: Any) -> bool:  # noqa: ANN401
        """Return whether it was rejected now."""
        return bool(raw)


@dataclass(frozen=True, kw_only=True)
class NackAll(Script[int]):
    """Make everything that is pending under a consumer's name claimable at once; returns how many entries."""

    name = "nack_all"

    requests: Key
    group: str
    consumer: str
    idle_ms: int
    #: Entry that is being processed, whose delivery counts; empty: none.
    processing_id: str
    limit: int
    #: Name of the consumer that gets them: nobody's.
    heir: str

    @staticmethod
    def reply(raw: Any) -> int:  # noqa: ANN401
        """Return how many entries."""
        return int(raw)


@dataclass(frozen=True, kw_only=True)
class RenewLeases(Script[tuple[str, ...]]):
    """Renew the leases of entries in flight; returns the ids that another consumer owns now."""

    name = "renew_leases"

    requests: Key
    group: str
    consumer: str
    entry_ids: Rest

    @staticmethod
    def reply(raw: Any) -> tuple[str, ...]:  # noqa: ANN401
        """Return the ids of lost entries."""
        return tuple(entry_id.decode() for entry_id in raw)


class TakeStatus(StrEnum):
    """What the server did with an entry that its consumer takes up again."""

    TAKEN = "taken"
    #: Another consumer owns it by now, or it was answered; nothing was written.
    GONE = "gone"
    #: It was cut from the stream while pending; it is pending no more.
    TRIMMED = "trimmed"


@dataclass(frozen=True, kw_only=True)
class TakeOwn(Script[tuple[TakeStatus, int, list[bytes]]]):
    """Take up an entry that is pending under this consumer's name; returns status, delivery count and fields."""

    name = "take_own"

    requests: Key
    group: str
    consumer: str
    entry_id: str
    least_deliveries: int

    @staticmethod
    def reply(raw: Any) -> tuple[TakeStatus, int, list[bytes]]:  # noqa: ANN401
        """Return status, delivery count and fields."""
        return TakeStatus(raw[0].decode()), int(raw[1]), raw[2]


@dataclass(frozen=True, kw_only=True)
class RemoveConsumer(Script[bool]):
    """Remove a consumer without pending entries; returns whether it was removed."""

    name = "remove_consumer"

    requests: Key
    heartbeat: Key
    group: str
    consumer: Text
    #: 1: the consumer itself leaves, so that it may still beat.
    leaves: int

    @staticmethod
    def reply(raw: Any) -> bool:  # noqa: ANN401
        """Return whether it was removed."""
        return bool(raw)


@dataclass(frozen=True, kw_only=True)
class TrimStream(Script[tuple[int, list[bytes]]]):
    """Cut a stream by age; returns entries cut, and the groups that need entries older than that."""

    name = "trim_stream"

    stream: Key
    retention_ms: int
    #: 0: look only.
    limit: int
    #: Group without which nothing may be cut; empty: none.
    needs_group: str

    @staticmethod
    def reply(raw: Any) -> tuple[int, list[bytes]]:  # noqa: ANN401
        """Return entries cut, and the groups that are behind."""
        return int(raw[0]), raw[1]


@dataclass(frozen=True, kw_only=True)
class Redrive(Script[tuple[str, str]]):
    """Put a rejected request back on its stream; returns status and detail."""

    name = "redrive"

    requests: Key
    rejections: Key
    request: Key
    rejection_id: str
    code: str
    remember_ms: int
    #: Field, value, field, value, … of the request, its request id among them.
    fields: Rest

    @staticmethod
    def reply(raw: Any) -> tuple[str, str]:  # noqa: ANN401
        """Return status and detail."""
        return raw[0].decode(), raw[1].decode()


@dataclass(frozen=True, kw_only=True)
class BeginApplication(Script[tuple[str, str, int, str]]):
    """Ask whether a gateway may apply a vector; returns status, detail, attempts and the book's symbols."""

    name = "begin_application"

    results: Key
    inbox: Key
    book: Key
    group: str
    consumer: str
    entry_id: str
    weights_sha256: str
    #: YYYYMMDD.
    as_of: int
    activation: int
    valid_until_ms: int
    remember_ms: int
    #: How long other consumers keep off the book.
    hold_ms: int
    #: Of the vector, those with a weight, comma-separated.
    symbols: str
    #: By which validity is judged; empty: the server's clock.
    now_ms: int | str = ""

    @staticmethod
    def reply(raw: Any) -> tuple[str, str, int, str]:  # noqa: ANN401
        """Return status, detail, attempts and symbols."""
        return raw[0].decode(), raw[1].decode(), int(raw[2]), raw[3].decode()


@dataclass(frozen=True, kw_only=True)
class FinishApplication(Script[str]):
    """Record that a gateway applied a vector; returns `applied` or `overtaken`."""

    name = "finish_application"

    results: Key
    inbox: Key
    book: Key
    group: str
    consumer: str
    entry_id: str
    weights_sha256: str
    #: YYYYMMDD.
    as_of: int
    activation: int
    request_id: str
    remember_ms: int
    #: Of the vector, those with a weight, comma-separated.
    symbols: str

    @staticmethod
    def reply(raw: Any) -> str:  # noqa: ANN401
        """Return the status."""
        return str(raw.decode())
