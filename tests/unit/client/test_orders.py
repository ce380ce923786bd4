import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import Signal
from tests.support.wire import make_vector
from worker.client import OrderRules, weights_to_orders
from worker.client.orders import orders_of

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
        shares, exact = float(held.get(symbol, 0)), weight * equity / prices[symbol]
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

    ordered = [order.symbol for order in plan.orders if order.after is None]
    refused = [one.symbol for one in plan.refused]
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


def test_order_keys_distinguish_requests_and_symbols():
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


NO_POSITIONS = [
    math.nan, math.inf, None, True, "", "ten", "1_000", "1,000", " 5", "\u0663", "nan", Decimal("sNaN"), 10**5000,
    "1e999", "9" * 65, [], Fraction(1, 3), 1e300,
]  # fmt: skip


@pytest.mark.parametrize("position", NO_POSITIONS, ids=range(len(NO_POSITIONS)))
def test_unusable_position_costs_its_symbol_alone(position):
    plan = orders_of({"AAPL": 0.5, "MSFT": 0.5}, "r", 1000, {"AAPL": 100, "MSFT": 100}, {"AAPL": position})

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("MSFT", 5)]
    assert [one.symbol for one in plan.refused] == ["AAPL"]
    assert plan.refused[0].reason.startswith("the position was ")


@pytest.mark.parametrize("price", ["185.64", Decimal("185.64"), 185.64, np.float64(185.64), np.float32(185.64)])
def test_price_is_read_as_it_is_written(price):
    plan = orders_of(
        {"AAPL": 1.0, "MSFT": -1.0}, "r", Decimal(18564), {"AAPL": price, "MSFT": 100}, {"AAPL": np.int64(3)}
    )

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("MSFT", -185), ("AAPL", 97)]


@pytest.mark.parametrize("price", ["", "n/a", "1.000,50", -1, "0", math.nan, False, b"1", 1e-300, object()])
def test_unusable_price_costs_its_symbol_alone(price):
    plan = orders_of({"AAPL": 1.0, "MSFT": 1.0}, "r", 1000, {"AAPL": price, "MSFT": 100}, {"AAPL": 7})

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("MSFT", 10)]
    assert [one.symbol for one in plan.refused] == ["AAPL"]


@pytest.mark.parametrize("symbol", [None, 5, ("AAPL",)])
def test_symbol_that_is_no_text_is_refused(symbol):
    plan = orders_of({symbol: 1.0, "MSFT": 1.0}, "r", 1000, {symbol: 10, "MSFT": 100}, {})

    assert [order.symbol for order in plan.orders] == ["MSFT"]
    assert [one.symbol for one in plan.refused] == [str(symbol)]


@pytest.mark.parametrize("weight", [math.nan, math.inf, None, "much"])
def test_weight_that_is_no_number_is_refused(weight):
    plan = orders_of({"AAPL": weight, "MSFT": 1.0}, "r", 1000, {"AAPL": 10, "MSFT": 100}, {})

    assert [order.symbol for order in plan.orders] == ["MSFT"]
    assert [one.symbol for one in plan.refused] == ["AAPL"]


def test_fraction_of_a_lot_that_is_held_stays_and_is_named():
    plan = orders_of({"AAPL": 1.0, "IBM": 0.0, "MSFT": -1.0}, "r", 10_000, dict.fromkeys(["AAPL", "IBM", "MSFT"], 100),
                     {"AAPL": 99.6, "IBM": 10.5, "MSFT": 0.5})  # fmt: skip

    assert [(order.symbol, order.quantity, order.target) for order in plan.orders] == [("IBM", -10, Decimal("0.5"))]
    assert [(one.symbol, one.wanted, one.target) for one in plan.limited] == [
        ("AAPL", 100, Decimal("99.6")),
        ("IBM", 0, Decimal("0.5")),
        ("MSFT", -100, Decimal("0.5")),
    ]


def test_order_across_zero_becomes_two_with_keys_of_their_own():
    plan = orders_of({"AAPL": -1.0}, "r", 10_000, {"AAPL": 100}, {"AAPL": 50})

    closing, opening = plan.orders
    assert (closing.quantity, closing.target, closing.after) == (-50, 0, None)
    assert (opening.quantity, opening.target, opening.after) == (-100, -100, closing.key)
    after_the_close = orders_of({"AAPL": -1.0}, "r", 10_000, {"AAPL": 100}, {"AAPL": 0})
    assert [order.key for order in after_the_close.orders] == [opening.key]


def test_order_across_zero_stays_one_where_rules_allow():
    rules = OrderRules(split_at_zero=False)

    plan = orders_of({"AAPL": -1.0}, "r", 10_000, {"AAPL": 100}, {"AAPL": 50}, rules)

    assert [order.quantity for order in plan.orders] == [-150]


def test_closing_legs_come_before_every_opening_leg():
    plan = orders_of({"AAPL": 1.0, "MSFT": -1.0}, "r", 1000, {"AAPL": 10, "MSFT": 10}, {"AAPL": -5, "MSFT": 5})

    assert [(order.symbol, order.quantity) for order in plan.orders] == [
        ("MSFT", -5), ("AAPL", 5), ("MSFT", -100), ("AAPL", 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "quantity"),
    [
        ({"lot_size": 100}, 300),
        ({"lot_size": "0.001"}, Decimal("333.333")),
        ({"lot_sizes": {"AAPL": 50}}, 300),
        ({"lot_sizes": {"IBM": 50}}, 333),
        ({"cash_buffer": 0.1}, 300),
        ({"max_position_notional": 1500}, 50),
        ({"max_gross_notional": 3000}, 100),
    ],
)
def test_rule_bounds_the_quantity(rules, quantity):
    plan = orders_of({"AAPL": 1.0}, "r", 10_000, {"AAPL": 30}, {}, OrderRules(**rules))

    assert [order.quantity for order in plan.orders] == [quantity]


@pytest.mark.parametrize("rules", [{"no_short": {"AAPL"}}, {"allow_short": False}])
def test_symbol_that_may_not_be_shorted_is_only_closed(rules):
    plan = orders_of({"AAPL": -1.0}, "r", 1000, {"AAPL": 10}, {"AAPL": 7}, OrderRules(**rules))

    assert [(order.quantity, order.target) for order in plan.orders] == [(-7, 0)]
    assert [(one.symbol, one.wanted, one.target) for one in plan.limited] == [("AAPL", -100, 0)]


def test_small_changes_are_left_and_small_closes_are_not():
    prices = dict.fromkeys(["AAPL", "IBM", "MSFT"], 10)

    plan = orders_of({"AAPL": 1.0, "IBM": 0.0, "MSFT": -0.03}, "r", 1000, prices, {"AAPL": 98, "IBM": 1, "MSFT": 2},
                     OrderRules(min_notional=50))  # fmt: skip

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("IBM", -1), ("MSFT", -2)]
    assert [one.symbol for one in plan.limited] == ["AAPL", "MSFT"]


def test_gross_limit_shrinks_all_targets_alike_beside_kept_positions():
    prices = {"AAPL": 10, "MSFT": 10, "KEPT": 100, "BAD": 1}

    plan = orders_of({"AAPL": 1.0, "MSFT": -1.0, "BAD": "?"}, "r", 1000, prices, {"KEPT": -5, "BAD": 100},
                     OrderRules(max_gross_notional=1600))  # fmt: skip

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("MSFT", -50), ("AAPL", 50)]


def test_gross_limit_that_cannot_be_checked_builds_no_position():
    plan = orders_of({"AAPL": 1.0, "IBM": 0.5, "MSFT": -1.0}, "r", 1000, dict.fromkeys(["AAPL", "IBM", "MSFT"], 10),
                     {"KEPT": 5, "IBM": 80, "MSFT": 20}, OrderRules(max_gross_notional=10_000))  # fmt: skip

    assert [(order.symbol, order.quantity) for order in plan.orders] == [("IBM", -30), ("MSFT", -20)]
    assert {one.symbol: "no price" in one.reason or "KEPT" in one.reason for one in plan.limited} == {
        "AAPL": True, "MSFT": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rules",
    [
        {"lot_size": 0},
        {"lot_size": math.nan},
        {"lot_sizes": {"AAPL": -1}},
        {"min_notional": -1},
        {"cash_buffer": 1},
        {"cash_buffer": "-0.1"},
        {"max_position_notional": 0},
        {"max_gross_notional": "none"},
        {"no_short": "AAPL"},
    ],
)
def test_rules_out_of_range_are_refused(rules):
    with pytest.raises(ValueError, match="was"):
        OrderRules(**rules)


BROKER_VALUES = st.one_of(
    st.sampled_from(NO_POSITIONS), st.integers(-(10**6), 10**6), st.floats(), st.floats(0.01, 1e4).map(str)
)


@given(
    weights=st.dictionaries(st.sampled_from(SYMBOLS), WEIGHTS),
    prices=st.dictionaries(st.sampled_from(SYMBOLS), BROKER_VALUES),
    positions=st.dictionaries(st.sampled_from(SYMBOLS), BROKER_VALUES),
    lot=st.sampled_from([1, 100, "0.01", 0.5]),
    short=st.booleans(),
    most=st.one_of(st.none(), st.integers(1, 10**6)),
    gross=st.one_of(st.none(), st.integers(1, 10**6)),
)
# A position that is left alone is beyond the gross limit, and there is no target to shrink.
@example(weights={}, prices={"S0": 1}, positions={"S0": 2e15}, lot=1, short=False, most=None, gross=1)
def test_hostile_book_gives_countable_orders_within_the_rules(weights, prices, positions, lot, short, most, gross):
    rules = OrderRules(lot_size=lot, allow_short=short, max_position_notional=most, max_gross_notional=gross)

    plan = weights_to_orders(vector_of(weights), 100_000, prices, positions, rules)

    refused = {one.symbol for one in plan.refused}
    for order in plan.orders:
        assert order.symbol not in refused
        assert order.quantity.is_finite()
        assert order.quantity
        assert order.quantity % Decimal(str(lot)) == 0
        held = order.target - order.quantity
        assert held * order.target >= 0, "an order crosses zero"
        grows = abs(order.target) > abs(held)
        assert short or order.target >= 0 or not grows
        if grows and most is not None:
            assert abs(order.target) * Decimal(str(prices[order.symbol])) <= most
    assert len({order.key for order in plan.orders}) == len(plan.orders)
