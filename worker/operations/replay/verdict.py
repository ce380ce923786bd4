"""The verdict on one published vector: computed again from its lineage, is it the same, bit for bit?

Owns: which fields of a vector follow from its lineage, and what counts as a difference.
Must not know: streams, files, clocks; bundle, panel and calendar are handed in.
Invariant: pure, and the same straight line that serves (`worker.serving.pipeline`); what the vector states is compared,
never trusted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import ValidationError

from contracts import Excluded, Explanation, IneligiblePolicy, RejectionCode, Signal, SignalRequest, SignalVector
from strategies.errors import StrategyError
from strategies.market.bars import Panel
from strategies.market.calendar import SessionCalendar
from strategies.market.eligibility import eligibility
from strategies.models.bundle import Bundle
from worker.serving.as_of import resolve_as_of
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector
from worker.serving.slots import ActiveBundle

#: What went into the vector.
INPUTS = ("strategy", "model_version", "model_sha256", "bundle_sha256", "proven", "feature_set_sha256", "snapshot_id")
#: What came out of it, beside the weights.
OUTPUTS = (
    "feature_set",
    "as_of",
    "valid_until",
    "prediction_kind",
    "horizon",
    "requested_top_n",
    "requested_bottom_n",
    "used_top_n",
    "used_bottom_n",
    "weights_sha256",
)
_SIGNAL = ("predicted_return", "rank", "target_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that came out otherwise."""

    #: A field of the vector or of a signal; `compute` where there is none at all.
    field: str
    #: Of a signal, an explanation or of what was left out; empty for a field of the whole vector.
    symbol: str = ""
    published: str
    recomputed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What computing a vector again showed."""

    #: None: identical, bit for bit. Inputs come first, as they explain the rest.
    differences: tuple[Difference, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether every prediction, rank, weight and digest came out again."""
        return not self.differences


def recompute(vector: SignalVector, bundle: Bundle, panel: Panel, calendar: SessionCalendar) -> Verdict:
    """Compute a vector again and compare it with what was published.

    Args:
        vector: As published.
        bundle: What its lineage names; another bundle is used all the same, and named in the verdict.
        panel: Bars of the whole snapshot that its lineage names; another snapshot likewise.
        calendar: Sessions of the exchange.
    """
    try:
        again = _again(vector, bundle, panel, calendar)
        unresolved = tuple(_as_of(vector, calendar))
    except (StrategyError, ValidationError) as error:
        # A request for what the vector states would have been refused, so no worker can have computed it.
        inputs = _inputs(vector, bundle, panel)
        none = Difference(field="answer", published=f"{len(vector.weights)} signals", recomputed=str(error))
        return Verdict(differences=(*inputs, none))
    return Verdict(
        differences=(
            *_fields(vector, again, INPUTS),
            *unresolved,
            *_fields(vector, again, OUTPUTS),
            *_signals(vector.weights, again.weights),
            *_left_out(vector.excluded, again.excluded),
            *_explained(vector.explanations, again.explanations),
        )
    )


def _again(vector: SignalVector, bundle: Bundle, panel: Panel, calendar: SessionCalendar) -> SignalVector:
    priced = [signal.symbol for signal in vector.weights]
    left_out = [one.symbol for one in vector.excluded]
    absent = tuple(_unknown(symbol) for symbol in left_out if symbol not in panel.index)
    request = SignalRequest(
        request_id=vector.request_id,
        strategy=vector.strategy,
        symbols=tuple(dict.fromkeys((*priced, *(out for out in left_out if out in panel.index)))),
        as_of=vector.as_of,
        top_n=vector.requested_top_n,
        bottom_n=vector.requested_bottom_n,
        on_ineligible=IneligiblePolicy.EXCLUDE,
        explain=bool(vector.explanations) or None,
    )
    rules = ServingRules(
        calendar=calendar,
        stale_after_sessions=_staleness(priced, bundle, panel, vector.as_of),
        **_relaxed(priced, bundle, panel, vector.as_of),
        # How many features were named is not in the lineage; no explanation names fewer unless the rest is 0.
        explain_features=max((len(one.contributions) for one in vector.explanations), default=0),
        explain_symbols=len(request.symbols or ()),
    )
    active = ActiveBundle(bundle=bundle, activation=vector.activation, since=vector.generated_at)
    found = compute(request, active, panel, rules, vector.generated_at)
    delivery = DeliveryRecord(
        worker=vector.worker, code_version=vector.code_version, queue_ms=0, compute_ms=0, deliveries=vector.deliveries
    )
    again = signal_vector(found, delivery, rules, vector.generated_at)
    return again.model_copy(update={"excluded": (*absent, *again.excluded)})


def _relaxed(priced: list[str], bundle: Bundle, panel: Panel, as_of: date) -> dict[str, Any]:
    """Return the rules of eligibility that the vector's worker cannot have had: it priced what they leave out."""
    lookback = bundle.feature_set.lookback
    found = eligibility(panel.window(priced, as_of, lookback), lookback, stale_after_sessions=lookback)
    return ({"min_bars_share": 0.0} if found.sparse else {}) | (
        {"tradable_only": False} if found.untradable or found.unsettled else {}
    )


def _staleness(priced: list[str], bundle: Bundle, panel: Panel, as_of: date) -> int:
    """Return the least limit under which all that was priced is fresh enough: the worker's own is not in the lineage.

    Whatever is staler than all of these must have been left out, whatever the limit was.
    """
    lookback = bundle.feature_set.lookback
    behind = eligibility(panel.window(priced, as_of, lookback), lookback, stale_after_sessions=-1).stale
    return max(behind.values(), default=0)


def _unknown(symbol: str) -> Excluded:
    return Excluded(symbol=symbol, code=RejectionCode.UNKNOWN_SYMBOL, reason=f"{symbol}: the snapshot has no bars")


def _as_of(vector: SignalVector, calendar: SessionCalendar) -> Iterator[Difference]:
    """Name a session later than the request allowed; how long sessions took to settle is not in the lineage."""
    if vector.requested_as_of is None:
        return
    latest = resolve_as_of(vector.requested_as_of, calendar, vector.generated_at)
    if vector.as_of > latest:
        yield Difference(field="as_of", published=str(vector.as_of), recomputed=f"at most {latest}, as requested")


def _inputs(vector: SignalVector, bundle: Bundle, panel: Panel) -> Iterator[Difference]:
    """Compare the lineage alone, where nothing came out."""
    here = {
        "strategy": bundle.strategy,
        "model_version": bundle.version,
        "model_sha256": bundle.model_sha256,
        "bundle_sha256": bundle.bundle_sha256,
        "proven": bundle.proven,
        "feature_set_sha256": bundle.feature_set.sha256,
        "snapshot_id": panel.snapshot_id,
    }
    for name in INPUTS:
        yield from _field(name, getattr(vector, name), here[name])


def _fields(vector: SignalVector, again: SignalVector, names: tuple[str, ...]) -> Iterator[Difference]:
    for name in names:
        yield from _field(name, getattr(vector, name), getattr(again, name))


def _field(name: str, published: object, recomputed: object) -> Iterator[Difference]:
    # Vectors of before a field was in the contract do not state it.
    if published is not None and published != recomputed:
        yield Difference(field=name, published=str(published), recomputed=str(recomputed))


def _signals(published: tuple[Signal, ...], recomputed: tuple[Signal, ...]) -> Iterator[Difference]:
    again = {signal.symbol: signal for signal in recomputed}
    for signal in published:
        other = again.pop(signal.symbol, None)
        if other is None:
            yield Difference(field="signal", symbol=signal.symbol, published="priced", recomputed="left out")
            continue
        for name in _SIGNAL:
            was, now = _bits(getattr(signal, name)), _bits(getattr(other, name))
            if was != now:
                yield Difference(field=name, symbol=signal.symbol, published=was, recomputed=now)
    for symbol in again:
        yield Difference(field="signal", symbol=symbol, published="left out", recomputed="priced")


def _left_out(published: tuple[Excluded, ...], recomputed: tuple[Excluded, ...]) -> Iterator[Difference]:
    was = {one.symbol: one.code for one in published}
    now = {one.symbol: str(one.code) for one in recomputed}
    for symbol in sorted(was.keys() | now.keys()):
        if was.get(symbol) != now.get(symbol):
            yield Difference(
                field="excluded",
                symbol=symbol,
                published=was.get(symbol, "not left out"),
                recomputed=now.get(symbol, "not left out"),
            )


def _explained(published: tuple[Explanation, ...], recomputed: tuple[Explanation, ...]) -> Iterator[Difference]:
    was = {one.symbol: _parsed(one) for one in published}
    now = {one.symbol: _parsed(one) for one in recomputed}
    for symbol in was | now:
        if symbol not in was or symbol not in now:
            yield Difference(
                field="explanation",
                symbol=symbol,
                published="explained" if symbol in was else "not explained",
                recomputed="explained" if symbol in now else "not explained",
            )
            continue
        for part in was[symbol] | now[symbol]:
            before, after = was[symbol].get(part, "not named"), now[symbol].get(part, "not named")
            if before != after:
                yield Difference(field=f"explanation.{part}", symbol=symbol, published=before, recomputed=after)


def _parsed(explanation: Explanation) -> dict[str, str]:
    """Return each part of an explanation and its bits; contributions with their place, as their order counts."""
    named = {
        one.feature: f"{place}. {_bits(one.contribution)} of {one.value!r}"
        for place, one in enumerate(explanation.contributions, start=1)
    }
    return {"base": _bits(explanation.base), "others": _bits(explanation.others), **named}


def _bits(value: float) -> str:
    """Return text that differs where one bit does, zero's sign included."""
    return repr(value)
