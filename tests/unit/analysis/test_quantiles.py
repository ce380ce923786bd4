"""Quantile returns: known by hand, ties as books take them, and alphalens' ranks beside ours."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from strategies.analysis.evaluation import correlations
from strategies.analysis.quantiles import measure_quantiles, quantile_count
from tests.support.market import sessions_from

NAN = np.nan


def days(count):
    return sessions_from(date(2020, 1, 2), count)


def test_quantile_means_are_those_of_a_hand():
    predictions = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    outcomes = np.array([[0.01, 0.02, 0.03, 0.06], [0.04, 0.00, 0.02, 0.02]])

    quantiles = measure_quantiles(days(2), "ABCD", predictions, outcomes)

    # Less the mean of the session: 0.03, then 0.02.
    lowest, highest = [-0.02, 0.0], [0.03, 0.02]
    assert quantiles.mean == pytest.approx([-0.01, np.mean([-0.01, 0.0]), np.mean([0.0, -0.02]), 0.025])
    assert quantiles.error[[0, 3]] == pytest.approx([np.std(each, ddof=1) / np.sqrt(2) for each in (lowest, highest)])
    assert quantiles.rows.tolist() == [2, 2, 2, 2]
    assert quantiles.turnover.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert quantiles.rank_autocorrelation == pytest.approx(-1.0)


def test_equal_predictions_fall_into_quantiles_as_books_hold_them():
    predictions, outcomes = np.ones((3, 4)), np.tile([0.04, 0.03, 0.02, 0.01], (3, 1))

    quantiles = measure_quantiles(days(3), "ABCD", predictions, outcomes)

    # A book of equal predictions is long A and short D.
    assert quantiles.mean == pytest.approx([-0.015, -0.005, 0.005, 0.015])
    assert quantiles.rank_autocorrelation == pytest.approx(1.0)


def test_unknown_outcome_leaves_the_quantiles_of_others_alone():
    predictions = np.array([[1.0, 2.0, 3.0, 4.0]] * 2)
    outcomes = np.array([[0.01, 0.02, 0.03, 0.04], [0.01, NAN, 0.03, 0.05]])

    quantiles = measure_quantiles(days(2), "ABCD", predictions, outcomes)

    assert quantiles.rows.tolist() == [2, 1, 2, 2]
    assert quantiles.mean[3] == pytest.approx(np.mean([0.04 - 0.025, 0.05 - 0.03]))


def test_session_that_cannot_fill_every_quantile_is_left_out():
    predictions = np.array([[1.0, 2.0, 3.0, 4.0]] * 3 + [[1.0, NAN, NAN, 4.0]])

    quantiles = measure_quantiles(days(4), "ABCD", predictions, np.tile([0.01, 0.02, 0.03, 0.04], (4, 1)))

    assert quantiles.rows.tolist() == [3, 3, 3, 3]


def test_symbols_beyond_the_quantiles_share_the_last_ones():
    predictions = np.array(
        [[1.0, 2.0, 3.0, 4.0, 5.0, NAN], [5.0, 4.0, 3.0, 2.0, 1.0, 6.0], [1.0, NAN, 2.0, 3.0, 4.0, NAN]]
    )
    returns = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 9.0], [0.5, 0.4, 0.3, 0.2, 0.1, 0.7], [9.0, 9.0, 9.0, 9.0, 9.0, 9.0]])

    quantiles = measure_quantiles(days(3), "ABCDEF", predictions, returns)

    # The third session has too few symbols; of the second's six, two share the lowest of five quantiles.
    first, second = 0.3, 2.2 / 6
    second_means = np.array([0.15, 0.3, 0.4, 0.5, 0.7]) - second
    assert quantiles.mean == pytest.approx((np.array([0.1, 0.2, 0.3, 0.4, 0.5]) - first + second_means) / 2)
    assert quantiles.rows.tolist() == [3, 2, 2, 2, 2]


@pytest.mark.parametrize(("symbols", "count"), [(1, 0), (2, 2), (4, 4), (300, 5)])
def test_quantiles_are_as_many_as_symbols_at_most_five(symbols, count):
    assert quantile_count(np.ones((3, symbols))) == count


def test_sessions_without_two_symbols_have_no_quantiles():
    quantiles = measure_quantiles(days(3), "AB", np.array([[1.0, NAN]] * 3), np.ones((3, 2)))

    assert len(quantiles.mean) == len(quantiles.rows) == 0
    assert quantiles.rank_autocorrelation is None


@pytest.mark.filterwarnings("ignore")  # of packages that alphalens pulls in
def test_alphalens_finds_the_rank_ic_that_evaluation_finds():
    from alphalens import performance  # noqa: PLC0415 - under the filter above

    rng = np.random.default_rng(2)
    predictions, outcomes = rng.normal(size=(30, 12)), rng.normal(size=(30, 12))
    index = pd.MultiIndex.from_product([pd.DatetimeIndex(days(30)), list("ABCDEFGHIJKL")], names=("date", "asset"))
    table = pd.DataFrame({"1D": outcomes.ravel(), "factor": predictions.ravel()}, index=index)

    theirs = performance.factor_information_coefficient(table)["1D"].to_numpy()

    assert correlations(predictions, outcomes).rank_ic == pytest.approx(theirs, abs=1e-12)
