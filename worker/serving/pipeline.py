"""One request to one signal vector: the straight line.

Owns: the order of the steps from a request to its weights, and the lineage that goes with them.
Must not know: streams, registry, files; the clock is handed in.
Invariant: pure; the same request, bundle, panel and instant give the same vector, and no bar after the as-of session
can change it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from contracts import (
    Excluded,
    Explanation,
    IneligiblePolicy,
    PredictionKind,
    Purpose,
    RejectionCode,
    Signal,
    SignalRequest,
    SignalVector,
    UniverseKind,
    universe_digest,
    weights_digest,
)
from strategies.construction import Construction, Portfolio, construct
from strategies.errors import NothingToPrice, TooManyToExplain
from strategies.market.bars import Float32Array, FloatArray, Panel, Window
from strategies.market.calendar import SessionCalendar
from strategies.market.eligibility import MIN_BARS_SHARE, Eligibility, eligibility
from strategies.models.bundle import Bundle
from strategies.models.explanations import Attribution
from worker.serving.as_of import resolve_as_of
from worker.serving.slots import ActiveBundle

_SIGNALS = TypeAdapter(tuple[Signal, ...])
_EXPLANATIONS = TypeAdapter(tuple[Explanation, ...])
_SIGNAL_FIELDS = ("symbol", "predicted_return", "rank", "target_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRules:
    """What the worker's settings state about every request."""

    calendar: SessionCalendar
    settle_minutes: int = 0
    stale_after_sessions: int = 0
    #: Share of the lookback's sessions on which a symbol must have a bar.
    min_bars_share: float = MIN_BARS_SHARE
    #: Whether symbols that did not trade, and unsettled ones, are left out.
    tradable_only: bool = True
    default_as_of: Literal["calendar", "snapshot"] = "calendar"
    threads: int = 1
    #: Features that an explanation names, and symbols that one answer may explain.
    explain_features: int = 5
    explain_symbols: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """How the request reached this worker; stated in the vector."""

    worker: str
    code_version: str
    queue_ms: float
    compute_ms: float
    deliveries: int
    #: Of the request stream; empty: that of no partition.
    partition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """Everything that a request's signals are made of."""

    request: SignalRequest
    active: ActiveBundle
    window: Window
    snapshot_id: str
    predictions: FloatArray
    portfolio: Portfolio
    excluded: tuple[Excluded, ...]
    #: Of each symbol of the window, `[symbols]`; empty unless the request asked.
    attributions: tuple[Attribution, ...] = ()


def compute(request: SignalRequest, active: ActiveBundle, panel: Panel, rules: ServingRules, now: datetime) -> Computed:
    """Return the signals that a request asks for.

    Raises:
        StrategyError: The bars and the bundle cannot honestly answer.
    """
    bundle = active.bundle
    as_of = _as_of(request, panel, rules, now)
    symbols, absent, policy = _symbols(request, bundle, panel)
    requested = panel.window(symbols, as_of, bundle.feature_set.lookback)  # [symbols, lookback] a field
    window, ineligible = _eligible(requested, bundle, policy, rules)
    _require_explainable(request, window, rules)
    features = bundle.feature_set.evaluate(window, threads=rules.threads)  # [symbols, features]
    predictions = bundle.predict(features)  # [symbols]
    portfolio = construct(window.symbols, predictions, _construction(request, bundle))  # [symbols]
    return Computed(
        request=request,
        active=active,
        window=window,
        snapshot_id=panel.snapshot_id,
        predictions=predictions,
        portfolio=portfolio,
        excluded=absent + ineligible,
        attributions=_attributions(request, bundle, features, predictions, rules),
    )


def signal_vector(computed: Computed, delivery: DeliveryRecord, rules: ServingRules, now: datetime) -> SignalVector:
    """Return the vector of what was computed, with its lineage."""
    request, bundle, portfolio = computed.request, computed.active.bundle, computed.portfolio
    weights = _signals(computed)
    as_of = computed.window.as_of
    return SignalVector(
        request_id=request.request_id,
        strategy=bundle.strategy,
        purpose=request.purpose or Purpose.TRADE,
        producer=request.producer,
        partition=delivery.partition,
        model_version=bundle.version,
        model_sha256=bundle.model_sha256,
        bundle_sha256=bundle.bundle_sha256,
        served_as=computed.active.served_as,
        activation=computed.active.activation,
        proven=bundle.proven,
        feature_set=bundle.feature_set.name,
        feature_set_sha256=bundle.feature_set.sha256,
        snapshot_id=computed.snapshot_id,
        requested_as_of=request.as_of,
        as_of=as_of,
        generated_at=now,
        valid_until=rules.calendar.close_instant(rules.calendar.next_session(as_of)),
        prediction_kind=PredictionKind(bundle.prediction_kind),
        horizon=bundle.label.horizon,
        requested_top_n=portfolio.requested_top_n,
        requested_bottom_n=portfolio.requested_bottom_n,
        used_top_n=portfolio.used_top_n,
        used_bottom_n=portfolio.used_bottom_n,
        universe=UniverseKind.MODEL if request.symbols is None else UniverseKind.NAMED,
        universe_sha256=universe_digest([*computed.window.symbols, *(one.symbol for one in computed.excluded)]),
        weights_sha256=weights_digest(weights),
        weights=weights,
        excluded=computed.excluded,
        explanations=_explanations(computed),
        worker=delivery.worker,
        code_version=delivery.code_version,
        queue_ms=delivery.queue_ms,
        compute_ms=delivery.compute_ms,
        deliveries=delivery.deliveries,
        traceparent=request.traceparent,
        tracestate=request.tracestate,
    )


def _as_of(request: SignalRequest, panel: Panel, rules: ServingRules, now: datetime) -> date:
    last: date = panel.sessions[-1].astype(object)
    return resolve_as_of(
        request.as_of,
        rules.calendar,
        now,
        settle_minutes=rules.settle_minutes,
        default=last if rules.default_as_of == "snapshot" else "calendar",
    )


def _symbols(
    request: SignalRequest, bundle: Bundle, panel: Panel
) -> tuple[Sequence[str], tuple[Excluded, ...], IneligiblePolicy]:
    """Return what to price, which symbols of the universe have no bars at all, and the policy for the rest."""
    if request.symbols is not None:
        return request.symbols, (), request.on_ineligible or IneligiblePolicy.REJECT
    policy = request.on_ineligible or IneligiblePolicy.EXCLUDE
    universe = bundle.universe or panel.symbols
    if policy is IneligiblePolicy.REJECT:
        return universe, (), policy
    absent = tuple(
        Excluded(symbol=symbol, code=RejectionCode.UNKNOWN_SYMBOL, reason=f"{symbol}: the snapshot has no bars of it")
        for symbol in universe
        if symbol not in panel.index
    )
    if len(absent) == len(universe):
        raise NothingToPrice(len(universe), absent[0].reason)
    return [symbol for symbol in universe if symbol in panel.index], absent, policy


def _eligible(
    window: Window, bundle: Bundle, policy: IneligiblePolicy, rules: ServingRules
) -> tuple[Window, tuple[Excluded, ...]]:
    lookback = bundle.feature_set.lookback
    checked = eligibility(window, lookback, stale_after_sessions=rules.stale_after_sessions)
    if checked.eligible.all():
        return window, ()
    if policy is IneligiblePolicy.REJECT:
        checked.require_all(stale_after_sessions=rules.stale_after_sessions, lookback=lookback)
    excluded = _excluded(window, checked, lookback, rules)
    if not checked.eligible.any():
        raise NothingToPrice(len(window.symbols), excluded[0].reason)
    return window.take(np.flatnonzero(checked.eligible)), excluded


def _require_explainable(request: SignalRequest, window: Window, rules: ServingRules) -> None:
    """Refuse to explain more than the hot path has time for; before anything is computed."""
    if request.explain and len(window.symbols) > rules.explain_symbols:
        raise TooManyToExplain(len(window.symbols), rules.explain_symbols)


def _attributions(
    request: SignalRequest, bundle: Bundle, features: Float32Array, predictions: FloatArray, rules: ServingRules
) -> tuple[Attribution, ...]:
    return bundle.explain(features, predictions, count=rules.explain_features) if request.explain else ()


def _excluded(window: Window, checked: Eligibility, lookback: int, rules: ServingRules) -> tuple[Excluded, ...]:
    limit = rules.stale_after_sessions
    reasons = {
        symbol: (RejectionCode.STALE_SYMBOL, f"last bar is {behind} sessions behind the as-of session, limit {limit}")
        for symbol, behind in checked.stale.items()
    } | {
        symbol: (RejectionCode.HISTORY_TOO_SHORT, f"{count} sessions since its first bar, lookback is {lookback}")
        for symbol, count in checked.short.items()
    }
    reasons |= {
        symbol: (
            RejectionCode.HISTORY_TOO_SHORT,
            f"{count} bars in the last {lookback} sessions, limit {checked.needed}",
        )
        for symbol, count in checked.sparse.items()
    }
    reasons |= {
        symbol: (RejectionCode.HELD_BACK, f"a step that looks like a split on {day} is not settled")
        for symbol, day in checked.unsettled.items()
    }
    reasons |= dict.fromkeys(
        checked.untradable, (RejectionCode.NOT_TRADABLE, "no trade on its last bars, or a halt flag")
    )
    return tuple(
        Excluded(symbol=symbol, code=reasons[symbol][0], reason=f"{symbol}: {reasons[symbol][1]}")
        for symbol in window.symbols
        if symbol in reasons
    )


def _construction(request: SignalRequest, bundle: Bundle) -> Construction:
    default = bundle.construction
    return Construction(
        top_n=default.top_n if request.top_n is None else request.top_n,
        bottom_n=default.bottom_n if request.bottom_n is None else request.bottom_n,
    )


def _signals(computed: Computed) -> tuple[Signal, ...]:
    order = np.argsort(computed.portfolio.ranks)
    rows = zip(
        (computed.window.symbols[row] for row in order),
        computed.predictions[order].tolist(),
        computed.portfolio.ranks[order].tolist(),
        computed.portfolio.weights[order].tolist(),
        strict=True,
    )
    # One call for all of them: building 500 models one by one costs more than their features.
    return _SIGNALS.validate_python([dict(zip(_SIGNAL_FIELDS, row, strict=True)) for row in rows])


def _explanations(computed: Computed) -> tuple[Explanation, ...]:
    if not computed.attributions:
        return ()
    order = np.argsort(computed.portfolio.ranks).tolist()
    return _EXPLANATIONS.validate_python(
        [{"symbol": computed.window.symbols[row], **_parts(computed.attributions[row])} for row in order]
    )


def _parts(attribution: Attribution) -> dict[str, object]:
    named = [
        {"feature": one.feature, "value": one.value, "contribution": one.contribution} for one in attribution.named
    ]
    return {"base": attribution.base, "contributions": named, "others": attribution.others}
