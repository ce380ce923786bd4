"""The results stream as one gateway sees it: its own consumer group, its own pending entries, its own position.

Owns: which entries are handed out, which are pending, which were refused.
Must not know: what a gateway does with a vector, or who carries the conversation.
Invariant: a vector is handed out once until it is acknowledged or released; an entry that is no vector stops nothing.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import structlog

from contracts import ContractError, SignalVector, StreamNames
from contracts.codec import decode
from contracts.entry_ids import EntryId
from worker.client.protocol import Execute, Operation
from worker.errors import GroupVanished, StreamUnavailable
from worker.transport.client import pairs_of, text_of

#: Refused entries that a feed remembers; each is also logged when it is met.
REFUSED_KEPT = 1000

_log = structlog.get_logger()
Rows = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One vector, handed out."""

    #: Its position on the results stream.
    entry_id: str
    vector: SignalVector
    #: Whether it may have been handed out before: to a former process, to a consumer that died, or after a release.
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEntry:
    """An entry of the results stream that is no vector."""

    entry_id: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Feed:
    """What one reader of the results stream knows of its place there."""

    names: StreamNames
    #: None: read for oneself, from `position` on, without a group.
    group: str | None
    consumer: str
    #: Where a group that does not exist begins, and where reading without a group begins; `$` = what comes from now on.
    from_id: str
    block_ms: int
    #: Idle time after which entries of other consumers of the group are taken over; None = never.
    claim_after_ms: int | None = None
    #: Last entry read.
    position: str = ""
    refused: deque[RefusedEntry] = field(default_factory=lambda: deque(maxlen=REFUSED_KEPT))
    #: Entries that were no vectors, since the start.
    refused_count: int = 0
    #: Entries that were cut from the stream before this group had acknowledged them.
    trimmed_count: int = 0
    recover: bool = True
    own: str = "0-0"
    in_flight: set[str] = field(default_factory=set)
    next_claim: float = 0.0
    #: Where the next look for entries of other consumers begins: what is renewed in front must not hide what is behind.
    claim_from: str = "0-0"


def read(feed: Feed, count: int) -> Operation[list[Delivery]]:
    """Return vectors, waiting `block_ms` for the first; none is no error.

    A group that is gone is created again at `from_id`.
    """
    if feed.group is None:
        return (yield from _read_alone(feed, count))
    if not feed.position:
        yield from _ensure_group(feed)
    try:
        found = yield from _read_group(feed, count)
    except GroupVanished as error:
        yield from _ensure_group(feed)
        _log.warning("group_recreated", stream=feed.names.results, group=feed.group, detail=str(error))
        feed.in_flight.clear()
        return []
    # Only now, after the last step that can fail: what never reaches the caller must be handed out again.
    feed.in_flight.update(delivery.entry_id for delivery in found)
    return found


def acknowledge(feed: Feed, *entry_ids: str) -> Operation[None]:
    """Acknowledge that a vector was dealt with, so that it is never handed out again."""
    if feed.group is None:
        raise ValueError("a feed without a group acknowledges nothing; keep its position instead")
    if entry_ids:
        yield Execute(("XACK", feed.names.results, feed.group, *entry_ids))
    feed.in_flight.difference_update(entry_ids)


def release(feed: Feed, entry_id: str) -> None:
    """Let a vector that was not dealt with be handed out again by the next read."""
    feed.in_flight.discard(entry_id)
    feed.recover, feed.own = True, "0-0"


def _read_group(feed: Feed, count: int) -> Operation[list[Delivery]]:
    found: list[Delivery] = []
    if feed.recover:
        found = yield from _own_pending(feed, count)
        if feed.recover:
            return found
    mine = {delivery.entry_id for delivery in found}
    found += [delivery for delivery in (yield from _claimed(feed)) if delivery.entry_id not in mine]
    # Until its reply is here, entries may be pending under this consumer's name that it has never seen.
    look_again, feed.recover = feed.recover, True
    # What is pending must not starve what is new: a vector that cannot be applied waits beside newer ones.
    block: tuple[str | int, ...] = () if found else ("BLOCK", feed.block_ms)
    rows = yield from _read_as_consumer(feed, count, ">", *block)
    feed.recover = look_again
    return found + (yield from _delivered(feed, rows, again=False))


def _own_pending(feed: Feed, count: int) -> Operation[list[Delivery]]:
    """Return a page of what is pending under this consumer's name; `feed.recover` ends with the last page."""
    while True:
        rows = yield from _read_as_consumer(feed, count, feed.own)
        feed.own = text_of(rows[-1][0]) if len(rows) == count else "0-0"
        feed.recover = len(rows) == count
        found = yield from _delivered(feed, [row for row in rows if text_of(row[0]) not in feed.in_flight], again=True)
        if found or not feed.recover:
            return found


def _claimed(feed: Feed) -> Operation[list[Delivery]]:
    """Return what other consumers left pending; after each look at everything that is pending there is a pause."""
    if feed.claim_after_ms is None or time.monotonic() < feed.next_claim:
        return []
    cursor, rows, *deleted = yield Execute(
        ("XAUTOCLAIM", feed.names.results, str(feed.group), feed.consumer, feed.claim_after_ms, feed.claim_from,
         "COUNT", 10)
    )  # fmt: skip
    feed.claim_from = text_of(cursor)
    if feed.claim_from == "0-0":
        feed.next_claim = time.monotonic() + feed.claim_after_ms / 2000
    if not all(rows):
        # A server before 7.0 answers nil for an entry that was trimmed away; under one's own name it names which.
        feed.recover, feed.own = True, "0-0"
    # Later servers have forgotten it by now, so that there is nothing to acknowledge.
    yield from _give_up(feed, [], {text_of(entry_id) for entry_id in (deleted[0] if deleted else ())})
    fresh = [row for row in rows if row and text_of(row[0]) not in feed.in_flight]
    return (yield from _delivered(feed, fresh, again=True))


def _read_as_consumer(feed: Feed, count: int, after: str, *block: str | int) -> Operation[Rows]:
    reply = yield Execute(
        ("XREADGROUP", "GROUP", str(feed.group), feed.consumer, "COUNT", count, *block,
         "STREAMS", feed.names.results, after),
        blocking=bool(block),
    )  # fmt: skip
    return reply[0][1] if reply else []


def _read_alone(feed: Feed, count: int) -> Operation[list[Delivery]]:
    if not feed.position:
        feed.position = yield from _beginning(feed, feed.from_id)
    reply = yield Execute(
        ("XREAD", "COUNT", count, "BLOCK", feed.block_ms, "STREAMS", feed.names.results, feed.position), blocking=True
    )
    if not reply:
        # On a flushed or older server the position would be ahead of the stream, and nothing ever come.
        feed.position = yield from _beginning(feed, feed.position)
        return []
    return (yield from _delivered(feed, reply[0][1], again=False))


def _delivered(feed: Feed, rows: Rows, *, again: bool) -> Operation[list[Delivery]]:
    found: list[Delivery] = []
    lost: list[str] = []
    for raw_id, flat in rows:
        entry_id = text_of(raw_id)
        if flat is None:
            lost.append(entry_id)
            continue
        try:
            vector = decode(SignalVector, pairs_of(flat))
        except ContractError as error:
            _refuse(feed, entry_id, str(error))
            lost.append(entry_id)
        else:
            found.append(Delivery(entry_id=entry_id, vector=vector, again=again))
        feed.position = entry_id if not again else feed.position
    yield from _give_up(feed, lost, {text_of(raw_id) for raw_id, flat in rows if flat is None})
    return found


def _give_up(feed: Feed, lost: list[str], trimmed: set[str]) -> Operation[None]:
    if trimmed:
        feed.trimmed_count += len(trimmed)
        _log.error("results_trimmed_while_pending", group=feed.group, entries=sorted(trimmed))
    if lost and feed.group is not None:
        yield from acknowledge(feed, *lost)


def _refuse(feed: Feed, entry_id: str, reason: str) -> None:
    feed.refused.append(RefusedEntry(entry_id=entry_id, reason=reason))
    feed.refused_count += 1
    _log.error("result_refused", group=feed.group, entry=entry_id, reason=reason)


def _ensure_group(feed: Feed) -> Operation[None]:
    feed.from_id = yield from _beginning(feed, feed.from_id)
    try:
        yield Execute(("XGROUP", "CREATE", feed.names.results, str(feed.group), feed.from_id, "MKSTREAM"))
    except StreamUnavailable as error:
        if error.reason != "BUSYGROUP":
            raise
    feed.recover, feed.own, feed.position = True, "0-0", feed.position or feed.from_id
    feed.claim_from = "0-0"


def _beginning(feed: Feed, from_id: str) -> Operation[str]:
    """Return the position, or the stream's beginning where it is ahead of everything the stream ever held."""
    if from_id in {"0", "0-0"}:
        return "0-0"
    last = yield from _last_id(feed)
    if from_id == "$":
        return last
    if EntryId.parse(from_id) > EntryId.parse(last):
        _log.warning("position_ahead_of_stream", stream=feed.names.results, position=from_id, last=last)
        return "0-0"
    return from_id


def _last_id(feed: Feed) -> Operation[str]:
    if not (yield Execute(("EXISTS", feed.names.results))):
        return "0-0"
    facts = yield Execute(("XINFO STREAM", feed.names.results))
    return text_of(facts["last-generated-id"])
