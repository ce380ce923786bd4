"""What gateways read: target weights and where they came from.

Owns: `SignalVector` and what it is made of, the digests of a vector's weights and of a universe.
Must not know: how predictions and weights are made.
Invariant: frozen; a full vector replaces the book; readers tolerate fields they do not know.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.fields import (
    AsOf,
    Digest,
    Instant,
    Partition,
    Producer,
    Purpose,
    RequestId,
    Sentence,
    Strategy,
    Symbol,
    TraceParent,
    TraceState,
    Version,
)

Finite = Annotated[float, Field(allow_inf_nan=False)]


class PredictionKind(StrEnum):
    """What `predicted_return` is."""

    #: A return over the vector's horizon, as a fraction.
    RETURN = "return"
    #: A score: only its order is meaningful.
    SCORE = "score"
    #: Of the label being true, 0 to 1.
    PROBABILITY = "probability"


class ServedAs(StrEnum):
    """In which part a model computed a vector."""

    #: The strategy's active version.
    ACTIVE = "active"
    #: A version in testing that answers a share of the requests; may be traded.
    CANARY = "canary"
    #: A version in testing beside the one that answered; on the shadow stream alone, never traded.
    SHADOW = "shadow"


class UniverseKind(StrEnum):
    """Where the symbols of a vector come from."""

    #: The request named none: the universe that the model was trained on.
    MODEL = "model"
    #: The request named them.
    NAMED = "named"


class Signal(BaseModel):
    """One symbol's prediction, rank and target weight."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    symbol: Symbol
    #: The model's own output, never rescaled by which other symbols were asked.
    predicted_return: Finite
    #: 1 = highest predicted return; ties by symbol.
    rank: Annotated[int, Field(ge=1)]
    #: Fraction of one leg's capital: longs sum to +1, shorts to -1.
    target_weight: Annotated[float, Field(ge=-1, le=1)]


class Excluded(BaseModel):
    """A requested symbol that was left out, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    symbol: Symbol
    #: A rejection code, e.g. `history_too_short`.
    code: str
    reason: Sentence


class Contribution(BaseModel):
    """What one feature added to one prediction."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    feature: str
    #: The feature's value as the model saw it, after the bundle's processors; absent: NaN or infinite.
    value: Finite | None = None
    #: In units of the prediction.
    contribution: Finite


class Explanation(BaseModel):
    """Why one symbol's prediction is what it is: `base`, the contributions and `others` sum to it.

    Summed exactly (`math.fsum`) they differ from it by half a unit in the last place of `others` at most.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    symbol: Symbol
    #: The model's expectation before it knows any feature.
    base: Finite
    #: Largest first, by absolute value; never 0.
    contributions: tuple[Contribution, ...]
    #: Sum of what the features not named contributed.
    others: Finite


class SignalVector(BaseModel):
    """All signals that answer one request, with their lineage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal["1"] = "1"
    request_id: RequestId
    strategy: Strategy
    #: From the request; only a vector to `trade` may be traded.
    purpose: Purpose = Purpose.TRADE
    #: From the request; absent: it named nobody.
    producer: Producer | None = None
    #: Of the request stream that it came on, which access rules can grant; empty: that of no partition.
    partition: Partition = ""
    model_version: Version
    #: SHA-256 of the model file.
    model_sha256: Digest
    #: SHA-256 of the bundle's manifest, which states the digest of every other file of it.
    bundle_sha256: Digest | None = None
    served_as: ServedAs = ServedAs.ACTIVE
    #: Number of the activation that made the strategy's active version serve.
    activation: Annotated[int, Field(ge=0)]
    #: Whether the model reproduced its golden sample on the worker before it served.
    proven: bool
    feature_set: str
    feature_set_sha256: Digest
    #: Content hash of the bars.
    snapshot_id: str
    #: From the request; absent: it asked for the latest complete session.
    requested_as_of: AsOf | None = None
    #: Last session whose bars were used.
    as_of: date
    generated_at: Instant
    #: Close of the session in which the vector may be traded; later it is worthless.
    valid_until: Instant
    prediction_kind: PredictionKind
    #: Over which prices the label runs, T being the as-of session; empty: nobody stated the label.
    horizon: str
    requested_top_n: Annotated[int, Field(ge=0)]
    requested_bottom_n: Annotated[int, Field(ge=0)]
    #: Smaller than requested where the universe is too small for both sides.
    used_top_n: Annotated[int, Field(ge=0)]
    used_bottom_n: Annotated[int, Field(ge=0)]
    #: Whether the request named its symbols; absent: from a worker before the field.
    universe: UniverseKind | None = None
    #: `universe_digest` of all symbols asked for, those left out included; absent likewise.
    universe_sha256: Digest | None = None
    #: SHA-256 over `weights_digest`'s text of the signals.
    weights_sha256: Digest
    #: In rank order.
    weights: tuple[Signal, ...]
    excluded: tuple[Excluded, ...] = ()
    #: In rank order; where the request asked for them.
    explanations: tuple[Explanation, ...] = ()
    #: Name of the worker that answered.
    worker: str
    #: Version of the code that answered.
    code_version: str
    #: Milliseconds from the request's XADD until a worker had read it.
    queue_ms: Annotated[float, Field(ge=0)]
    #: Milliseconds from decoding to the finished vector.
    compute_ms: Annotated[float, Field(ge=0)]
    deliveries: Annotated[int, Field(ge=1)] = 1
    traceparent: TraceParent | None = None
    tracestate: TraceState | None = None


def weights_digest(signals: Sequence[Signal]) -> str:
    """Return the SHA-256 over symbol, prediction, rank and weight of each signal, in rank order.

    Equal vectors have equal digests on every machine: floats are formatted as the shortest text that parses exactly.
    """
    rows = [[signal.symbol, signal.predicted_return, signal.rank, signal.target_weight] for signal in signals]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def universe_digest(symbols: Iterable[str]) -> str:
    """Return the SHA-256 over the symbols, sorted and joined by commas: equal for the same set in any order."""
    return hashlib.sha256(",".join(sorted(symbols)).encode()).hexdigest()
