"""Books are compared: one planted feature moves a prediction, and is named."""

import lightgbm as lgb
import numpy as np
import pytest

from strategies.construction import Construction
from tests.parity.books import Rows, compare_books
from tests.support.market import sessions_from

SYMBOLS = ("AAPL", "IBM", "MSFT", "ORCL")
NAMES = ("A", "B", "C")
ONE_A_SIDE = Construction(top_n=1, bottom_n=1)


@pytest.fixture(scope="module")
def booster():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, len(NAMES)))
    parameters = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lgb.train(parameters, lgb.Dataset(rows, rows[:, 1]), num_boost_round=30)


def make_rows(change=None, *, priced=None):
    qlib = np.zeros((2, len(SYMBOLS), len(NAMES)), np.float32)
    qlib[:, :, 1] = np.float32([-1.0, -0.3, 0.3, 1.0])
    ours = qlib.copy()
    for cell, value in (change or {}).items():
        ours[cell] = value
    return Rows(
        symbols=SYMBOLS,
        sessions=sessions_from(np.datetime64("2013-01-02").astype(object), 2),
        names=NAMES,
        qlib=qlib,
        ours=ours,
        priced=np.ones((2, len(SYMBOLS)), bool) if priced is None else priced,
    )


def test_equal_features_give_equal_books(booster):
    parity = compare_books(booster, make_rows(), ONE_A_SIDE)

    assert (parity.sessions, parity.predictions, parity.equal_predictions) == (2, 8, 8)
    assert (parity.book_share, parity.causes) == (1.0, ())


def test_a_book_that_differs_names_symbol_and_feature(booster):
    parity = compare_books(booster, make_rows({(1, 2, 1): 2.5, (1, 2, 0): 0.1}), ONE_A_SIDE)

    (cause,) = [cause for cause in parity.causes if cause.symbol == "MSFT"]
    assert (parity.equal_predictions, parity.book_share) == (7, 0.5)
    assert cause.weights == (0.0, 1.0)
    assert "B" in cause.features
    assert cause.values[cause.features.index("B")] == (pytest.approx(0.3), 2.5)


def test_a_prediction_may_differ_without_moving_the_book(booster):
    parity = compare_books(booster, make_rows({(0, 2, 1): 0.0}), ONE_A_SIDE)

    assert parity.equal_predictions == 7
    assert parity.book_share == 1.0
    assert parity.largest > 0


def test_unpriced_symbols_and_sessions_are_left_out(booster):
    priced = np.array([[True, True, True, False], [False] * 4])
    parity = compare_books(booster, make_rows({(0, 3, 1): 9.0}, priced=priced), ONE_A_SIDE)

    assert (parity.sessions, parity.predictions, parity.equal_predictions) == (1, 3, 3)
