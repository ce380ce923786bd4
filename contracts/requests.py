"""What producers ask for.

Owns: `SignalRequest` and the bounds of its fields.
Must not know: which strategies, symbols or sessions exist.
Invariant: frozen; a field the contract does not have is refused by name.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contracts.fields import (
    AsOf,
    Count,
    Instant,
    Producer,
    Purpose,
    RequestId,
    Strategy,
    Symbols,
    TraceParent,
    TraceState,
)


class IneligiblePolicy(StrEnum):
    """What becomes of a request with a symbol whose bars are stale or too few."""

    #: The whole request is rejected, naming the symbol.
    REJECT = "reject"
    #: The symbol is left out and named in the vector's `excluded`.
    EXCLUDE = "exclude"


class SignalRequest(BaseModel):
    """A request for one signal vector.

    On the stream: `XADD signals:requests * strategy alpha_baseline symbols AAPL,MSFT,IBM`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Version of this contract.
    v: Literal["1"] = "1"
    #: Exactly one outcome is published for it; absent on the stream: the entry's id.
    request_id: RequestId
    strategy: Strategy
    #: Absent: `trade`.
    purpose: Purpose | None = None
    #: Who asks, as gateways know it: a gateway may follow the requests of some producers alone.
    producer: Producer | None = None
    #: Absent: the universe that the strategy's model was trained on.
    symbols: Symbols | None = None
    #: Absent: the latest complete session.
    as_of: AsOf | None = None
    #: Symbols held long at most, +1/N each; absent: the model bundle's.
    top_n: Count | None = None
    #: Symbols held short at most, -1/N each; absent: the model bundle's.
    bottom_n: Count | None = None
    #: Absent: `reject` where symbols are named, `exclude` for the universe.
    on_ineligible: IneligiblePolicy | None = None
    #: After this instant no vector is published; the request is rejected as `deadline_exceeded`.
    deadline: Instant | None = None
    #: Whether the vector names, for each symbol, the features that moved its prediction most.
    explain: bool | None = None
    traceparent: TraceParent | None = None
    tracestate: TraceState | None = None
