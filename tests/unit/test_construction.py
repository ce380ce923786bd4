"""Ranks and weights: the order of symbols, the two sides, small universes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.construction import MAX_SIDE, Construction, Portfolio, construct
from strategies.errors import InfeasibleConstruction

SIZES = range(1, 51)
PREDICTIONS = {
    "distinct": lambda size: np.random.default_rng(size).normal(size=size),
    "tied": lambda size: np.random.default_rng(size).integers(0, 3, size).astype(float),
    "equal": lambda size: np.full(size, 0.01),
}


def names(size: int) -> list[str]:
    return [f"S{number:03d}" for number in range(size)]


def assert_valid(portfolio: Portfolio, size: int) -> None:
    longs, shorts = portfolio.weights > 0, portfolio.weights < 0
    assert sorted(portfolio.ranks) == list(range(1, size + 1))
    assert longs.sum() == portfolio.used_top_n
    assert shorts.sum() == portfolio.used_bottom_n
    assert abs(portfolio.weights[longs].sum() - (portfolio.used_top_n > 0)) <= 1e-12
    assert abs(portfolio.weights[shorts].sum() + (portfolio.used_bottom_n > 0)) <= 1e-12
    if longs.any() and shorts.any():
        assert portfolio.ranks[longs].max() < portfolio.ranks[shorts].min()


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_sides_sum_to_one_for_every_universe_size(size, kind):
    predictions = PREDICTIONS[kind](size)

    for wanted in (1, 2, 3, 5, 25, 60):
        portfolio = construct(names(size), predictions, Construction(top_n=wanted, bottom_n=wanted))

        assert_valid(portfolio, size)
        assert portfolio.used_top_n == portfolio.used_bottom_n == min(wanted, size // 2)


def test_five_symbols_leave_the_middle_one_flat():
    portfolio = construct(list("ABCDE"), np.array([0.1, 0.5, 0.3, 0.2, 0.4]), Construction())

    assert portfolio.ranks.tolist() == [5, 1, 3, 4, 2]
    assert portfolio.weights.tolist() == [-0.5, 0.5, 0.0, -0.5, 0.5]
    assert (portfolio.requested_top_n, portfolio.requested_bottom_n) == (3, 3)
    assert (portfolio.used_top_n, portfolio.used_bottom_n) == (2, 2)


def test_single_symbol_of_two_sides_has_no_weight():
    portfolio = construct(["AAPL"], np.array([0.1]), Construction())

    assert portfolio.weights.tolist() == [0.0]
    assert (portfolio.used_top_n, portfolio.used_bottom_n) == (0, 0)


def test_equal_predictions_rank_by_symbol_ascending():
    portfolio = construct(["MSFT", "AAPL", "IBM"], np.zeros(3), Construction(top_n=1, bottom_n=1))

    assert portfolio.ranks.tolist() == [3, 1, 2]
    assert portfolio.weights.tolist() == [-1.0, 1.0, 0.0]


def test_negative_zero_ties_with_zero():
    portfolio = construct(["B", "A"], np.array([0.0, -0.0]), Construction(top_n=1, bottom_n=1))

    assert portfolio.ranks.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("top_n", "bottom_n", "size", "used"),
    [(3, 0, 5, (3, 0)), (3, 0, 2, (2, 0)), (0, 2, 1, (0, 1)), (3, 1, 4, (3, 1)), (3, 1, 3, (1, 1)), (4, 2, 5, (2, 2))],
)
def test_one_sided_and_uneven_books_use_what_fits(top_n, bottom_n, size, used):
    portfolio = construct(names(size), np.arange(size, dtype=float), Construction(top_n=top_n, bottom_n=bottom_n))

    assert (portfolio.used_top_n, portfolio.used_bottom_n) == used
    assert_valid(portfolio, size)


@given(
    predictions=st.lists(st.floats(-1.0, 1.0, allow_nan=False), min_size=1, max_size=40),
    top_n=st.integers(0, 50),
    bottom_n=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_permuting_symbols_permutes_ranks_and_weights(predictions, top_n, bottom_n, seed):
    symbols, values = np.array(names(len(predictions))), np.array(predictions)
    shuffled = np.random.default_rng(seed).permutation(len(predictions))
    construction = Construction(top_n=top_n, bottom_n=bottom_n)

    straight = construct(symbols.tolist(), values, construction)
    permuted = construct(symbols[shuffled].tolist(), values[shuffled], construction)

    assert_valid(straight, len(predictions))
    assert permuted.ranks.tolist() == straight.ranks[shuffled].tolist()
    assert permuted.weights.tolist() == straight.weights[shuffled].tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_prediction_that_is_not_finite_names_its_symbol(bad):
    with pytest.raises(InfeasibleConstruction, match=f"prediction of MSFT is {bad}"):
        construct(["AAPL", "MSFT"], np.array([0.1, bad]), Construction())


@pytest.mark.parametrize(
    ("top_n", "bottom_n", "words"),
    [
        (-1, 3, "top_n is -1"),
        (3, MAX_SIDE + 1, "bottom_n is 10001"),
        (0, 0, "^top_n and bottom_n are both 0, at least one side must hold a symbol$"),
        (True, 3, "top_n is True"),
        (1.5, 3, "top_n is 1.5"),
    ],
)
def test_impossible_side_is_refused_by_name(top_n, bottom_n, words):
    with pytest.raises(InfeasibleConstruction, match=words):
        Construction(top_n=top_n, bottom_n=bottom_n)


def test_symbol_given_twice_is_refused_by_name():
    with pytest.raises(InfeasibleConstruction, match=r"^symbols given more than once: AMZN, IBM$"):
        construct(["IBM", "AAPL", "IBM", "AMZN", "AMZN"], np.zeros(5), Construction())


@pytest.mark.parametrize("side", ["top_n", "bottom_n"])
def test_largest_side_is_allowed(side):
    assert getattr(Construction(**{side: MAX_SIDE}), side) == MAX_SIDE
    with pytest.raises(InfeasibleConstruction, match=f"{side} is {MAX_SIDE + 1}"):
        Construction(**{side: MAX_SIDE + 1})


@pytest.mark.parametrize(
    ("symbols", "count", "words"),
    [
        ([], 0, "^no symbol to rank, at least 1 is needed$"),
        (["AAPL"], 2, r"^1 symbols, but predictions have shape \(2,\)$"),
    ],
)
def test_symbols_and_predictions_must_match(symbols, count, words):
    with pytest.raises(InfeasibleConstruction, match=words):
        construct(symbols, np.zeros(count), Construction())


def test_portfolio_arrays_cannot_be_written_to():
    portfolio = construct(["A", "B"], np.zeros(2), Construction())

    assert (portfolio.ranks.dtype, portfolio.weights.dtype) == (np.int64, np.float64)
    for values in (portfolio.weights, portfolio.ranks):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1
