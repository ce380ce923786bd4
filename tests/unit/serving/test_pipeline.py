import dataclasses
import math
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import IneligiblePolicy, SignalRequest, weights_digest
from strategies.errors import HistoryTooShort, NothingToPrice, StaleSymbols, TooManyToExplain, UnknownSymbols
from strategies.market.calendar import SessionCalendar
from strategies.models.processors import Scaling, apply_processors
from tests.support.market import make_panel
from tests.support.serving import NOW, make_active
from worker.serving.pipeline import DeliveryRecord, ServingRules, compute, signal_vector

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT", "NEW")
RULES = ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))
#: 120 sessions, 2012-09-05 to 2013-02-28; NEW is listed 30 sessions before the end.
PANEL = make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5), starts={"NEW": 90})
ACTIVE = make_active(SYMBOLS)
DELIVERY = DeliveryRecord(worker="w", code_version="1", queue_ms=0.0, compute_ms=0.0, deliveries=1)


def make_request(**fields):
    return SignalRequest(
        **{"request_id": "r", "strategy": "alpha_baseline", "symbols": SYMBOLS[:4], "as_of": date(2013, 2, 1)} | fields
    )


def vector_of(request, panel=PANEL, active=ACTIVE, rules=RULES, now=NOW):
    return signal_vector(compute(request, active, panel, rules, now), DELIVERY, rules, now)


def corrupted_after(as_of, seed):
    """Return the panel with every bar after a session replaced by nonsense."""
    rng = np.random.default_rng(seed)
    start = int(np.searchsorted(PANEL.sessions, np.datetime64(as_of), side="right"))
    fields = {name: values.copy() for name, values in PANEL.fields.items()}
    for values in fields.values():
        shape = values[:, start:].shape
        values[:, start:] = rng.choice([np.nan, np.inf, -1.0, 0.0, 1e300, 7.0], size=shape)
    return dataclasses.replace(PANEL, fields=fields)


@settings(max_examples=25, deadline=None)
@given(session=st.integers(min_value=61, max_value=118), seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_no_bar_after_the_as_of_session_changes_the_vector(session, seed):
    as_of = PANEL.sessions[session].astype(object)
    request = make_request(as_of=as_of)

    assert vector_of(request, corrupted_after(as_of, seed)) == vector_of(request)


def test_bar_of_the_as_of_session_itself_does_change_the_vector():
    fields = {name: values.copy() for name, values in PANEL.fields.items()}
    fields["close"][:, PANEL.column(date(2013, 2, 1))] *= 1.05

    assert vector_of(make_request(), dataclasses.replace(PANEL, fields=fields)) != vector_of(make_request())


@settings(max_examples=20, deadline=None)
@given(st.permutations(SYMBOLS[:4]))
def test_order_of_the_symbols_does_not_matter(symbols):
    assert vector_of(make_request(symbols=tuple(symbols))).weights == vector_of(make_request()).weights


def test_prediction_does_not_depend_on_who_else_was_asked():
    alone = {
        signal.symbol: signal.predicted_return for signal in vector_of(make_request(symbols=("IBM", "GOOG"))).weights
    }
    among = {signal.symbol: signal.predicted_return for signal in vector_of(make_request()).weights}

    assert alone == {symbol: among[symbol] for symbol in alone}


def test_vector_states_where_it_came_from():
    vector = vector_of(make_request(as_of=date(2013, 2, 3)))

    assert vector.as_of == date(2013, 2, 1)
    assert vector.requested_as_of == date(2013, 2, 3)
    assert vector.valid_until == datetime(2013, 2, 4, 21, tzinfo=UTC)
    assert vector.model_sha256 == ACTIVE.bundle.model_sha256
    assert vector.feature_set_sha256 == ACTIVE.bundle.feature_set.sha256
    assert vector.snapshot_id == PANEL.snapshot_id
    assert vector.horizon == "close of T+1 to close of T+2"
    assert vector.weights_sha256 == weights_digest(vector.weights)
    assert (vector.requested_top_n, vector.used_top_n, vector.used_bottom_n) == (3, 2, 2)


def test_sides_of_the_request_override_the_bundle():
    vector = vector_of(make_request(top_n=1, bottom_n=0))

    assert [signal.target_weight for signal in vector.weights] == [1.0, 0.0, 0.0, 0.0]


def test_named_symbol_with_short_history_rejects_the_request():
    with pytest.raises(HistoryTooShort, match=r"NEW \(30\); lookback is 61"):
        vector_of(make_request(symbols=("AAPL", "NEW"), as_of=date(2013, 2, 28)))


def test_symbol_that_is_not_listed_yet_has_no_history_and_is_not_stale():
    with pytest.raises(HistoryTooShort, match=r"NEW \(0\); lookback is 61"):
        vector_of(make_request(symbols=("AAPL", "NEW"), as_of=date(2012, 12, 14)))


def test_short_history_is_excluded_and_named_where_asked():
    request = make_request(symbols=("AAPL", "NEW"), as_of=date(2013, 2, 28), on_ineligible=IneligiblePolicy.EXCLUDE)

    vector = vector_of(request)

    assert [(excluded.symbol, excluded.code) for excluded in vector.excluded] == [("NEW", "history_too_short")]
    assert [signal.symbol for signal in vector.weights] == ["AAPL"]
    assert vector.used_top_n == 0


def test_universe_leaves_out_who_is_short_and_who_has_no_bars():
    active = make_active((*SYMBOLS, "GONE"))

    vector = vector_of(make_request(symbols=None, as_of=date(2013, 2, 28)), active=active)

    assert {excluded.symbol: excluded.code for excluded in vector.excluded} == {
        "GONE": "unknown_symbol",
        "NEW": "history_too_short",
    }


def test_universe_may_be_asked_to_be_whole():
    active = make_active((*SYMBOLS, "GONE"))

    with pytest.raises(UnknownSymbols, match="GONE"):
        vector_of(make_request(symbols=None, on_ineligible=IneligiblePolicy.REJECT), active=active)


def test_universe_without_any_bars_is_nothing_to_price():
    with pytest.raises(NothingToPrice, match="none of the 2"):
        vector_of(make_request(symbols=None), active=make_active(("GONE", "LOST")))


def test_stale_symbol_serves_only_within_the_limit():
    fields = {name: values.copy() for name, values in PANEL.fields.items()}
    for values in fields.values():
        values[0, -1] = np.nan
    panel = dataclasses.replace(PANEL, fields=fields)
    request = make_request(as_of=date(2013, 2, 28))

    with pytest.raises(StaleSymbols, match=r"AAPL \(1\); at most 0 allowed"):
        vector_of(request, panel)
    assert len(vector_of(request, panel, rules=dataclasses.replace(RULES, stale_after_sessions=1)).weights) == 4


def test_threads_do_not_change_a_bit():
    threaded = dataclasses.replace(RULES, threads=2)

    assert vector_of(make_request(), rules=threaded) == vector_of(make_request())


def test_explanations_sum_to_the_predictions_in_rank_order():
    vector = vector_of(make_request(explain=True))

    assert [one.symbol for one in vector.explanations] == [signal.symbol for signal in vector.weights]
    for signal, one in zip(vector.weights, vector.explanations, strict=True):
        parts = (one.base, *(named.contribution for named in one.contributions), one.others)
        assert math.fsum(parts) == pytest.approx(signal.predicted_return, rel=1e-14)
        assert 1 <= len(one.contributions) <= 5


@pytest.mark.parametrize("explain", [None, False])
def test_vector_explains_only_where_asked(explain):
    assert vector_of(make_request(explain=explain)).explanations == ()


def test_explaining_changes_no_digest_and_no_weight():
    explained, plain = vector_of(make_request(explain=True)), vector_of(make_request())

    assert explained.model_copy(update={"explanations": ()}) == plain


def test_rules_bound_how_many_features_are_named():
    vector = vector_of(make_request(explain=True), rules=dataclasses.replace(RULES, explain_features=2))

    assert {len(one.contributions) for one in vector.explanations} == {2}


def test_explained_value_is_what_the_model_saw_after_the_processors():
    width = len(ACTIVE.bundle.feature_set.names)
    doubled = Scaling(kind="zscore", center=(0.0,) * width, scale=(0.5,) * width)
    bundle = dataclasses.replace(ACTIVE.bundle, processors=(doubled,))
    request = make_request(symbols=("AAPL",), explain=True, top_n=1, bottom_n=0)
    raw = bundle.feature_set.evaluate(PANEL.window(("AAPL",), request.as_of, bundle.lookback))
    seen = dict(zip(bundle.feature_set.names, apply_processors((doubled,), raw)[0].tolist(), strict=True))

    (one,) = vector_of(request, active=dataclasses.replace(ACTIVE, bundle=bundle)).explanations

    assert [named.value for named in one.contributions] == [seen[named.feature] for named in one.contributions]


def test_more_symbols_than_may_be_explained_reject_the_request_unless_it_asks_for_none():
    few = dataclasses.replace(RULES, explain_symbols=3)

    with pytest.raises(TooManyToExplain, match="4 symbols are to be explained, at most 3"):
        vector_of(make_request(explain=True), rules=few)
    assert len(vector_of(make_request(), rules=few).weights) == 4
    assert len(vector_of(make_request(explain=True, symbols=SYMBOLS[:3]), rules=few).explanations) == 3


def test_symbols_left_out_do_not_count_as_explained():
    request = make_request(
        symbols=("AAPL", "IBM", "NEW"), as_of=date(2013, 2, 28), on_ineligible=IneligiblePolicy.EXCLUDE, explain=True
    )

    vector = vector_of(request, rules=dataclasses.replace(RULES, explain_symbols=2))

    assert sorted(one.symbol for one in vector.explanations) == ["AAPL", "IBM"]
