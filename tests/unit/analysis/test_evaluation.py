"""What predictions were worth: correlations, books, costs, and what cannot be measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strategies.analysis.evaluation import drawdown, metrics, perform
from strategies.construction import Construction
from strategies.models.correlations import correlations

NAN = np.nan
ONE_EACH = Construction(top_n=1, bottom_n=1)


def random_cross_sections(seed=3, sessions=40, symbols=12):
    rng = np.random.default_rng(seed)
    predictions = np.round(rng.normal(size=(sessions, symbols)), 1)
    labels = np.round(0.3 * predictions + rng.normal(size=(sessions, symbols)), 1)
    labels[rng.random(labels.shape) < 0.2] = NAN
    return predictions, labels


def test_correlations_equal_those_of_scipy():
    predictions, labels = random_cross_sections()

    signal = correlations(predictions, labels)

    for session, (row, label) in enumerate(zip(predictions, labels, strict=True)):
        known = np.isfinite(label)
        assert signal.ic[session] == pytest.approx(stats.pearsonr(row[known], label[known])[0], abs=1e-12)
        assert signal.rank_ic[session] == pytest.approx(stats.spearmanr(row[known], label[known])[0], abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ([0.1, 0.2, NAN], [0.1, 0.2, 0.3]),
        ([0.1, 0.2, 0.3], [0.1, NAN, 0.3]),
        ([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]),
        ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0]),
        ([NAN, NAN, NAN], [NAN, NAN, NAN]),
    ],
)
def test_session_that_cannot_correlate_is_nan(prediction, label):
    signal = correlations(np.array([prediction]), np.array([label]))

    assert np.isnan(signal.ic[0])
    assert np.isnan(signal.rank_ic[0])


@given(st.floats(1e-12, 1e12), st.integers(0, 100))
def test_scaling_predictions_leaves_rank_correlation_alone(factor, seed):
    predictions, labels = random_cross_sections(seed, sessions=3)
    scaled = predictions * factor

    assert correlations(scaled, labels).rank_ic == pytest.approx(correlations(predictions, labels).rank_ic)
    assert correlations(scaled, labels).ic == pytest.approx(correlations(predictions, labels).ic, abs=1e-9)


def test_book_earns_longs_less_shorts_less_costs():
    predictions = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    returns = np.array([[0.02, 0.5, -0.01], [0.01, 0.5, 0.04]])

    performance = perform("ABC", predictions, returns, construction=ONE_EACH, cost_bps=10.0)

    assert performance.gross_returns == pytest.approx([0.03, 0.03])
    assert performance.turnover == pytest.approx([2.0, 4.0])
    assert performance.net_returns == pytest.approx([0.03 - 0.002, 0.03 - 0.004])


def test_session_without_two_priced_symbols_has_no_book():
    predictions = np.array([[2.0, 1.0], [NAN, 1.0], [NAN, NAN], [2.0, 1.0]])
    returns = np.full((4, 2), 0.01)

    performance = perform("AB", predictions, returns, construction=ONE_EACH, cost_bps=0.0)

    assert np.isnan(performance.net_returns).tolist() == [False, True, True, False]
    assert performance.turnover[[0, 3]].tolist() == [2.0, 0.0]


def test_unknown_return_of_a_held_symbol_is_counted():
    predictions = np.array([[2.0, 1.0], [2.0, 1.0]])
    returns = np.array([[0.01, NAN], [NAN, NAN]])

    performance = perform("AB", predictions, returns, construction=ONE_EACH, cost_bps=0.0)

    assert performance.unknown_returns == 1
    assert performance.gross_returns[0] == 0.01
    assert np.isnan(performance.gross_returns[1])


def test_metrics_of_a_known_series_come_out():
    predictions = np.array([[2.0, 1.0, 0.0]] * 3)
    returns = np.array([[0.1, 0.0, 0.0], [-0.5, 0.0, 0.0], [0.2, 0.1, 0.0]])
    net = np.array([0.1, -0.5, 0.2])

    performance = perform("ABC", predictions, returns, construction=ONE_EACH, cost_bps=0.0)
    figures = metrics(correlations(predictions, returns), performance)

    assert figures["cumulative_return"] == pytest.approx(1.1 * 0.5 * 1.2 - 1)
    assert figures["annualised_return"] == pytest.approx(0.66**84 - 1)
    assert figures["sharpe"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(252))
    assert figures["max_drawdown"] == pytest.approx(-0.5)
    assert figures["win_share"] == pytest.approx(2 / 3)
    assert figures["turnover"] == pytest.approx(2 / 3)
    assert figures["ic_sessions"] == 3.0


def test_metrics_of_nothing_are_none_not_zero():
    nothing = np.full((3, 2), NAN)

    performance = perform("AB", nothing, nothing, construction=ONE_EACH, cost_bps=5.0)
    figures = metrics(correlations(nothing, nothing), performance)

    assert {name for name, value in figures.items() if value is not None} == {
        "ic_sessions",
        "sessions",
        "unknown_returns",
    }


def test_single_session_has_a_mean_but_no_ratio():
    predictions, returns = np.array([[3.0, 2.0, 1.0]]), np.array([[0.3, 0.2, 0.1]])

    performance = perform("ABC", predictions, returns, construction=ONE_EACH, cost_bps=0.0)
    figures = metrics(correlations(predictions, returns), performance)

    assert figures["ic"] == pytest.approx(1.0)
    assert figures["icir"] is None
    assert figures["sharpe"] is None


def test_book_that_loses_everything_has_no_annual_return():
    predictions, returns = np.array([[2.0, 1.0]]), np.array([[-0.6, 0.6]])

    performance = perform("AB", predictions, returns, construction=ONE_EACH, cost_bps=0.0)
    figures = metrics(correlations(predictions, returns), performance)

    assert figures["annualised_return"] is None
    assert figures["max_drawdown"] == pytest.approx(-1.2)


def test_drawdown_counts_a_loss_from_the_start():
    assert drawdown(np.array([-0.1, 0.2])).tolist() == pytest.approx([-0.1, 0.0])


def test_short_side_pays_for_what_it_borrows():
    predictions = np.array([[3.0, 2.0, 1.0], [NAN, NAN, NAN], [1.0, 2.0, 3.0]])
    returns = np.full((3, 3), 0.01)

    performance = perform("ABC", predictions, returns, construction=ONE_EACH, cost_bps=0.0, borrow_bps_a_year=252.0)

    assert performance.net_returns[[0, 2]] == pytest.approx([-0.0001, -0.0001])
    assert np.isnan(performance.net_returns[1])
