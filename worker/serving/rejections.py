"""Which error becomes which code, and the rejection of a request.

Owns: the only map from error classes to rejection codes.
Must not know: streams.
Invariant: every class that ends a request has exactly one code; anything else is a bug and is tried again.
"""

from collections.abc import Mapping
from datetime import datetime

from contracts import Rejection, RejectionCode
from contracts import errors as wire
from contracts.codec import printable, request_id_of
from strategies import errors as strategy
from worker import errors as edge
from worker.serving.request_stream import Entry
from worker.tracing import trace_fields

CODES: Mapping[type[Exception], RejectionCode] = {
    wire.MalformedEntry: RejectionCode.MALFORMED_REQUEST,
    wire.UnknownField: RejectionCode.UNKNOWN_FIELD,
    wire.UnsupportedVersion: RejectionCode.UNSUPPORTED_VERSION,
    wire.EntryTooLarge: RejectionCode.ENTRY_TOO_LARGE,
    wire.EmptySymbols: RejectionCode.EMPTY_SYMBOLS,
    wire.DuplicateSymbols: RejectionCode.DUPLICATE_SYMBOLS,
    wire.TooManySymbols: RejectionCode.TOO_MANY_SYMBOLS,
    wire.MalformedAsOf: RejectionCode.MALFORMED_AS_OF,
    strategy.UnknownSymbols: RejectionCode.UNKNOWN_SYMBOL,
    strategy.AsOfBeforeData: RejectionCode.AS_OF_BEFORE_DATA,
    strategy.AsOfInFuture: RejectionCode.AS_OF_IN_FUTURE,
    strategy.CalendarRange: RejectionCode.AS_OF_OUTSIDE_CALENDAR,
    strategy.StaleSnapshot: RejectionCode.STALE_SNAPSHOT,
    strategy.StaleSymbols: RejectionCode.STALE_SYMBOL,
    strategy.HistoryTooShort: RejectionCode.HISTORY_TOO_SHORT,
    strategy.NotTradable: RejectionCode.NOT_TRADABLE,
    strategy.HeldBack: RejectionCode.HELD_BACK,
    strategy.NothingToPrice: RejectionCode.NOTHING_TO_PRICE,
    strategy.InfeasibleConstruction: RejectionCode.INFEASIBLE_CONSTRUCTION,
    strategy.TooManyToExplain: RejectionCode.TOO_MANY_TO_EXPLAIN,
    strategy.NotExplainable: RejectionCode.NOT_EXPLAINABLE,
    edge.UnknownStrategy: RejectionCode.UNKNOWN_STRATEGY,
    edge.StrategyNotServed: RejectionCode.STRATEGY_NOT_SERVED,
    edge.NoActiveBundle: RejectionCode.NO_ACTIVE_MODEL,
    edge.NoSnapshot: RejectionCode.MISSING_SNAPSHOT,
    edge.DeadlineExceeded: RejectionCode.DEADLINE_EXCEEDED,
    edge.DeliveriesExhausted: RejectionCode.DELIVERIES_EXHAUSTED,
}

#: Longest sentence of a rejection, in characters.
REASON_CHARACTERS = 2000
#: Errors that end a request with a rejection.
REJECTED = tuple(CODES)


def code_of(error: Exception) -> RejectionCode:
    """Return the code of an error that ends a request."""
    return CODES[type(error)]


def rejection_of(entry: Entry, error: Exception, *, worker: str, now: datetime) -> Rejection:
    """Return the rejection of an entry, with the error's code and sentence and the fields as they came."""
    return Rejection(
        request_id=request_id_of(entry.pairs, entry.default_id),
        code=code_of(error),
        reason=str(error)[:REASON_CHARACTERS],
        entry_id=entry.id,
        partition=entry.partition,
        rejected_at=now,
        deliveries=entry.deliveries,
        worker=worker,
        fields=printable(entry.pairs),
        **trace_fields(entry.pairs),
    )
