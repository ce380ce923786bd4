"""What producers read when a request could not be answered.

Owns: the closed list of rejection codes and `Rejection`.
Must not know: the errors behind the codes.
Invariant: a code never changes its meaning; a new reason gets a new code.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.fields import Instant, Partition, RequestId, Sentence, TraceParent, TraceState


class RejectionCode(StrEnum):
    """Why a request has no vector."""

    MALFORMED_REQUEST = "malformed_request"
    UNKNOWN_FIELD = "unknown_field"
    UNSUPPORTED_VERSION = "unsupported_version"
    ENTRY_TOO_LARGE = "entry_too_large"
    EMPTY_SYMBOLS = "empty_symbols"
    DUPLICATE_SYMBOLS = "duplicate_symbols"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    UNKNOWN_SYMBOL = "unknown_symbol"
    UNKNOWN_STRATEGY = "unknown_strategy"
    STRATEGY_NOT_SERVED = "strategy_not_served"
    NO_ACTIVE_MODEL = "no_active_model"
    MISSING_SNAPSHOT = "missing_snapshot"
    MALFORMED_AS_OF = "malformed_as_of"
    AS_OF_IN_FUTURE = "as_of_in_future"
    AS_OF_BEFORE_DATA = "as_of_before_data"
    AS_OF_OUTSIDE_CALENDAR = "as_of_outside_calendar"
    STALE_SNAPSHOT = "stale_snapshot"
    STALE_SYMBOL = "stale_symbol"
    HISTORY_TOO_SHORT = "history_too_short"
    NOT_TRADABLE = "not_tradable"
    HELD_BACK = "held_back"
    NOTHING_TO_PRICE = "nothing_to_price"
    INFEASIBLE_CONSTRUCTION = "infeasible_construction"
    TOO_MANY_TO_EXPLAIN = "too_many_to_explain"
    NOT_EXPLAINABLE = "not_explainable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    DELIVERIES_EXHAUSTED = "deliveries_exhausted"


class Rejection(BaseModel):
    """A request that could not be answered honestly, with the fields as they came."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal["1"] = "1"
    request_id: RequestId
    code: RejectionCode
    #: What was found and what the limit is, in one sentence.
    reason: Sentence
    #: Entry id of the request on the requests stream, that of the partition where there is one.
    entry_id: str
    partition: Partition = ""
    rejected_at: Instant
    deliveries: Annotated[int, Field(ge=1)] = 1
    worker: str
    #: The request's fields as they came: bytes that are not UTF-8 escaped, long values cut.
    fields: dict[str, str]
    traceparent: TraceParent | None = None
    tracestate: TraceState | None = None
