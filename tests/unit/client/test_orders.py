import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import Signal
from tests.support.wire import make_vector
from worker.client import weights_to_orders

SYMBOLS = [f"S{n}" for n in range(8)]
WEIGHTS = st.one_of(st.just(0.0), st.floats(min_value=-1, max_value=1, allow_subnormal=False))
PRICES = st.floats(min_value=0.01, max_value=1e5)
POSITIONS = st.dictionaries(st.sampled_from(SYMBOLS), st.integers(-10_000, 10_000))
EQUITY = st.floats(min_value=1, max_value=1e9)


def vector_of(weights):
    signals = [
        Signal(symbol=symbol, predicted_return=0.0, rank=rank, target_weight=weight)
        for rank, (symbol, weight) in enumerate(weights.items(), start=1)
    ]
    return make_vector(weights=tuple(signals))


def filled(positions, plan):
    held = dict(positions)
    for order in plan.orders:
        held[order.symbol] = held.get(order.symbol, 0) + order.quantity
    return {symbol: shares for symbol, shares in held.items() if shares}


@given(
    weights=st.dictionaries(st.sampled_from(SYMBOLS), WEIGHTS),
    prices=st.fixed_dictionaries(dict.fromkeys(SYMBOLS, PRICES)),
    positions=POSITIONS,
    equity=EQUITY,
)
def test_filled_orders_never_exceed_any_weight(weights, prices, positions, equity):
    plan = weights_to_orders(vector_of(weights), equity, prices, positions)

    held = filled(positions, plan)
    assert plan.refused == ()
    assert set(held) <= set(weights)
    for symbol, weight in weights.items():
        shares, exact = held.get(symbol, 0), weight * equity / prices[symbol]
        assert abs(exact) - 1 <= abs(shares) <= abs(exact) + 1e-9
        assert shares == 0 or math.copysign(1, shares) == math.copysign(1, weight)


@given(
    weights=st.dictionaries(st.sampled_from(SYMBOLS), WEIGHTS),
    prices=st.dictionaries(
        st.sampled_from(SYMBOLS), st.one_of(PRICES, st.sampled_from([0.0, -1.0, math.nan, math.inf]))
    ),
    positions=POSITIONS,
    equity=EQUITY,
)
def test_each_symbol_is_ordered_refused_or_already_right(weights, prices, positions, equity):
    plan = weights_to_orders(vector_of(weights), equity, prices, positions)

    ordered, refused = [order.symbol for order in plan.orders], [one.symbol for one in plan.refused]
    assert len(set(ordered + refused)) == len(ordered + refused)
    assert all(weights[symbol] and not (0 < prices.get(symbol, 0) < math.inf) for symbol in refused)
    again = weights_to_orders(vector_of(weights), equity, prices, filled(positions, plan))
    assert again.orders == ()
    assert again.refused == plan.refused


def test_names_that_leave_the_book_are_closed_without_a_price():
    plan = weights_to_orders(vector_of({"AAPL": 0.0}), 1000.0, {}, {"AAPL": 3, "GONE": -4})

    assert {order.symbol: order.quantity for order in plan.orders} == {"AAPL": -3, "GONE": 4}
    assert plan.refused == ()


def test_missing_price_is_refused_and_leaves_the_position():
    plan = weights_to_orders(vector_of({"AAPL": 0.5, "MSFT": 0.5}), 1000.0, {"AAPL": math.nan}, {"MSFT": 7})

    assert plan.orders == ()
    assert [(one.symbol, one.reason) for one in plan.refused] == [
        ("AAPL", "the price was nan, must be a positive number"),
        ("MSFT", "no price"),
    ]


@pytest.mark.parametrize(("weight", "shares"), [(0.5, 1), (-0.5, -1), (0.33, None), (1.0, 3)])
def test_shares_are_whole_and_round_towards_zero(weight, shares):
    plan = weights_to_orders(vector_of({"AAPL": weight}), 100.0, {"AAPL": 33.34 if shares != 3 else 33.33}, {})

    assert [order.quantity for order in plan.orders] == ([] if shares is None else [shares])


def test_third_of_a_leg_buys_the_round_number_of_shares():
    plan = weights_to_orders(vector_of({"AAPL": 0.3333333333333333}), 30_000.0, {"AAPL": 100.0}, {})

    assert [order.quantity for order in plan.orders] == [100]


def test_sales_come_before_the_purchases_they_pay_for():
    plan = weights_to_orders(vector_of({"AAPL": 1.0, "MSFT": 0.0}), 100.0, {"AAPL": 10.0}, {"MSFT": 5})

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("MSFT", -5), ("AAPL", 10)]


def test_order_keys_tell_requests_and_symbols_apart():
    def keys(request_id):
        vector = vector_of({"AAPL": 1.0, "MSFT": -1.0}).model_copy(update={"request_id": request_id})
        plan = weights_to_orders(vector, 100.0, {"AAPL": 1.0, "MSFT": 1.0}, {})
        return {order.key for order in plan.orders}

    assert keys("r-1") == keys("r-1")
    assert len(keys("r-1") | keys("r-2")) == 4
    assert {len(key) for key in keys("r-1")} == {36}


@pytest.mark.parametrize("equity", [0.0, -1.0, math.nan, math.inf])
def test_equity_that_is_no_positive_number_is_refused(equity):
    with pytest.raises(ValueError, match="must be a positive number"):
        weights_to_orders(vector_of({"AAPL": 1.0}), equity, {"AAPL": 1.0}, {})
