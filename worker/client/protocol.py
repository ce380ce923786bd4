"""Which commands the client sends, and in which order; run by a thread or by an event loop.

Owns: every operation of the client as a generator that yields steps and is sent their replies.
Must not know: connections, threads, event loops; `synchronous` and `asynchronous` run the same operations.
Invariant: nothing is done but by steps, so the two twins behave alike by construction.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import structlog

from contracts import ContractError, Heartbeat, Rejection, SignalRequest, SignalVector, StreamNames
from contracts.codec import decode, encode
from worker.client.errors import OutcomeGone, SubmitInterrupted
from worker.errors import RequestTimeout, StreamUnavailable
from worker.retry import Outage, backoff
from worker.transport.client import pairs_of

Argument: TypeAlias = str | int | bytes
Command: TypeAlias = tuple[Argument, ...]
Outcome: TypeAlias = SignalVector | Rejection
Result = TypeVar("Result")

#: Most commands sent before their replies are read: bounds the memory of both sides.
SENT_AT_ONCE = 500
#: Part of the time already waited that the next pause between two looks takes, and its bounds in seconds. An answer
#: is seen at most a tenth late, and one that takes minutes costs four looks a second.
PAUSE_PART, PAUSE_MIN, PAUSE_MAX = 0.1, 0.001, 0.25

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Execute:
    """One command; the step's reply is the server's, as it came."""

    command: Command
    #: Whether it may block, and so needs the connection that waits longer.
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Several commands in one round trip; the reply is the list of theirs."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait that ends early when the runner is stopped."""

    seconds: float


Step: TypeAlias = Execute | Pipeline | Pause
Operation: TypeAlias = Generator[Step, Any, Result]


def new_request(
    strategy: str,
    symbols: Sequence[str] | None = None,
    *,
    as_of: date | datetime | str | None = None,
    request_id: str | None = None,
    **options: object,
) -> SignalRequest:
    """Return a request under the caller's id, or under a new one."""
    return SignalRequest.model_validate(
        {
            "request_id": request_id or str(uuid.uuid4()),
            "strategy": strategy,
            "symbols": None if symbols is None else tuple(symbols),
            "as_of": as_of,
            **options,
        }
    )


def submit(names: StreamNames, request: SignalRequest) -> Operation[str]:
    """Add one request."""
    try:
        yield Execute(_xadd(names, request))
    except StreamUnavailable as error:
        raise SubmitInterrupted(error, [request]) from error
    return request.request_id


def submit_many(names: StreamNames, requests: Iterable[SignalRequest | Mapping[str, Any]]) -> Operation[list[str]]:
    """Add many requests in few round trips; all are checked before the first is sent."""
    checked = [one if isinstance(one, SignalRequest) else new_request(**one) for one in requests]
    sent = 0
    for some in _batches(checked):
        try:
            yield Pipeline(tuple(_xadd(names, request) for request in some))
        except StreamUnavailable as error:
            raise SubmitInterrupted(error, checked[sent:]) from error
        sent += len(some)
    return [request.request_id for request in checked]


def outcome(names: StreamNames, request_id: str) -> Operation[Outcome | None]:
    """Look once for the outcome of a request."""
    key = names.request(request_id)
    remembered = yield Execute(("HMGET", key, "state", "stream", "entry"))
    while remembered[2] is not None:
        state, stream, entry = remembered
        rows = yield Execute(("XRANGE", stream, entry, entry, "COUNT", 1))
        if rows:
            pairs = pairs_of(rows[0][1])
            return decode(SignalVector, pairs) if state == b"done" else decode(Rejection, pairs)
        remembered = yield Execute(("HMGET", key, "state", "stream", "entry"))
        # A rejection put back between the two looks is no outcome any more; one that was cut is gone for good.
        if remembered[2] == entry:
            raise OutcomeGone(
                f"request {request_id} was {state.decode()}, but {entry.decode()} is no longer on its stream"
            )
    return None


def result(names: StreamNames, request_id: str, timeout: float) -> Operation[Outcome]:
    """Look for the outcome of a request until it is there."""
    began = time.monotonic()
    while True:
        found = yield from outcome(names, request_id)
        if found is not None:
            return found
        waited = time.monotonic() - began
        if waited >= timeout:
            where = f"`signal-worker requests show {request_id}` states where it is"
            raise RequestTimeout(f"request {request_id} has no outcome after {timeout:g} s; {where}")
        yield Pause(min(max(waited * PAUSE_PART, PAUSE_MIN), PAUSE_MAX, timeout - waited))


def workers(names: StreamNames) -> Operation[list[Heartbeat]]:
    """Read the heartbeat of every living worker."""
    keys: set[bytes] = set()
    cursor: Argument = 0
    while True:
        cursor, found = yield Execute(("SCAN", cursor, "MATCH", names.worker("*"), "COUNT", SENT_AT_ONCE))
        keys.update(found)
        if int(cursor) == 0:
            break
    beats: list[Heartbeat] = []
    for some in _batches(sorted(keys)):
        hashes = yield Pipeline(tuple(("HGETALL", key) for key in some))
        beats += [beat for fields in hashes if fields and (beat := _heartbeat(fields))]
    return beats


def retrying(
    operation: Callable[[], Operation[Result]], *, outage: Outage, stopped: Callable[[], bool], max_seconds: float
) -> Operation[Result]:
    """Run an operation again until the server is available, with capped and jittered pauses.

    The operation must be idempotent.
    """
    failures = 0
    while True:
        try:
            reply = yield from operation()
        except StreamUnavailable as error:
            if stopped():
                raise
            outage.away(error)
            failures += 1
            yield Pause(backoff(failures, first=0.05, longest=max_seconds, least=0.0))
        else:
            outage.back()
            return reply


def _xadd(names: StreamNames, request: SignalRequest) -> Command:
    return ("XADD", names.requests, "*", *(text for pair in encode(request).items() for text in pair))


def _heartbeat(fields: Mapping[bytes, bytes]) -> Heartbeat | None:
    try:
        return decode(Heartbeat, tuple(fields.items()))
    except ContractError as error:
        _log.warning("heartbeat_refused", reason=str(error))
        return None


Item = TypeVar("Item")


def _batches(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while some := tuple(islice(rest, SENT_AT_ONCE)):
        yield some
