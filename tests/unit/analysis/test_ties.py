"""What equal predictions do to a book, and what chance gives."""

import numpy as np
import pytest

from strategies.analysis.evaluation import chance_rank_ic, metrics, perform, ranking_fault, t_statistic, tied_share
from strategies.construction import Construction, construct
from strategies.models.correlations import correlations

SYMBOLS = ["A", "B", "C", "D", "E", "F"]
TWO = Construction(top_n=2, bottom_n=2)


@pytest.mark.parametrize(
    ("predictions", "share"),
    [
        ([6, 5, 4, 3, 2, 1], 0.0),
        ([1, 1, 1, 1, 1, 1], 1.0),
        ([6, 5, 5, 3, 2, 1], 0.25),  # one of two equal ones is bought
        ([6, 6, 4, 4, 1, 1], 0.0),  # ties within a side decide nothing
        ([6, 5, 5, 5, 5, 1], 0.5),  # one bought, one sold, two neither
        ([2, 2, 2, 1, 1, 1], 1.0),
    ],
)
def test_share_of_the_book_that_the_alphabet_decided(predictions, share):
    predictions = np.array(predictions, dtype=float)

    assert tied_share(predictions, construct(SYMBOLS, predictions, TWO).weights) == share


def test_share_is_that_of_what_another_order_of_symbols_would_exchange():
    predictions = np.random.default_rng(0).integers(0, 4, (50, 6)).astype(float)
    for row in predictions:
        weights = construct(SYMBOLS, row, TWO).weights
        other = construct(SYMBOLS[::-1], row, TWO).weights
        assert (tied_share(row, weights) > 0) == (weights.tolist() != other.tolist())


def test_metrics_state_distinct_predictions_and_ties():
    rng = np.random.default_rng(1)
    returns = rng.normal(size=(40, 6))
    predictions = np.where(np.arange(40)[:, None] < 20, rng.normal(size=(40, 6)), 0.5)
    predictions[0, 0] = np.nan

    performance = perform(SYMBOLS, predictions, returns, construction=TWO, cost_bps=0)
    found = metrics(correlations(predictions, returns), performance)

    assert found["distinct_predictions"] == (19 * 6 + 5 + 20) / 40
    assert found["tied_share"] == 0.5
    fault = ranking_fault(found)
    assert fault is not None
    assert "3.5 distinct predictions" in fault
    assert "50% of the book" in fault


@pytest.mark.parametrize("figures", [{}, {"tied_share": None, "distinct_predictions": None},
                                     {"tied_share": 0.05, "distinct_predictions": 9.0}])  # fmt: skip
def test_nothing_is_said_of_models_that_rank_or_of_unknown_figures(figures):
    assert ranking_fault(figures) is None


def test_one_of_twenty_random_orders_has_more_than_what_chance_gives():
    rng = np.random.default_rng(2)
    returns = rng.normal(size=(60, 12))
    beyond = []
    for _ in range(400):
        signal = correlations(rng.normal(size=(60, 12)), returns)
        beyond.append(abs(signal.rank_ic.mean()) > chance_rank_ic(signal))

    assert 0.02 < np.mean(beyond) < 0.09


def test_t_statistic_is_that_of_the_mean_of_measured_sessions():
    values = np.array([0.1, np.nan, 0.3, 0.2])

    assert t_statistic(values) == pytest.approx(0.2 / (0.1 / np.sqrt(3)))
    assert t_statistic(np.array([np.nan])) is None
    assert chance_rank_ic(correlations(np.full((2, 3), np.nan), np.zeros((2, 3)))) is None
