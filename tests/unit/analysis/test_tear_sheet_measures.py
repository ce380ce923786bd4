"""What a tear sheet measures: the border of the training, calibration, importance, and figures known by hand."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.analysis.evaluation import EvaluationResult, metrics, perform
from strategies.analysis.tear_sheet.measures import (
    MIN_BIN_ROWS,
    calibrate,
    further_figures,
    importances,
    rolling_mean,
    session_range,
    split_at_test,
)
from strategies.construction import Construction
from strategies.errors import TrainingError
from strategies.models.correlations import correlations
from tests.support.market import sessions_from
from tests.support.models import make_booster, make_content

NAN = np.nan
TRAINING = make_content().lineage.training


def result_of(predictions, returns, *, cost_bps=10.0):
    predictions, returns = np.array(predictions), np.array(returns)
    performance = perform(
        "ABCDEFGH"[: predictions.shape[1]],
        predictions,
        returns,
        construction=Construction(top_n=1, bottom_n=1),
        cost_bps=cost_bps,
    )
    signal = correlations(predictions, returns)
    return EvaluationResult(
        sessions=sessions_from(date(2020, 1, 2), len(predictions)),
        symbols=tuple("ABCDEFGH"[: predictions.shape[1]]),
        predictions=predictions,
        labels=returns,
        returns=returns,
        signal=signal,
        performance=performance,
        metrics=metrics(signal, performance),
    )


def test_sessions_before_the_test_period_are_in_sample():
    sessions = sessions_from(TRAINING.train.first, 250)[10:240]
    day = np.datetime64(TRAINING.test.first, "D")

    seen, unseen = split_at_test(sessions, TRAINING)

    assert (sessions[seen] < day).all()
    assert sessions[unseen][0] == day
    assert (seen.start, unseen.stop) == (0, 230)


def test_gap_before_the_test_period_counts_as_seen():
    sessions = sessions_from(TRAINING.train.first, 250)
    after_valid = int(np.searchsorted(sessions, np.datetime64(TRAINING.valid.last, "D"))) + 1

    seen, _ = split_at_test(sessions[after_valid:240], TRAINING)

    assert seen.stop - seen.start == TRAINING.gap_sessions > 0


@pytest.mark.parametrize(("period", "seen", "unseen"), [(slice(0, 5), 5, 0), (slice(240, 250), 0, 10)])
def test_period_on_one_side_leaves_the_other_empty(period, seen, unseen):
    before, after = split_at_test(sessions_from(TRAINING.train.first, 250)[period], TRAINING)

    assert (before.stop - before.start, after.stop - after.start) == (seen, unseen)


def test_period_takes_in_both_its_days():
    sessions = sessions_from(date(2020, 1, 2), 10)

    assert session_range(sessions, sessions[2], sessions[4]) == slice(2, 5)


def test_period_without_a_session_is_refused_by_its_days():
    sessions = sessions_from(date(2020, 1, 2), 10)

    with pytest.raises(TrainingError, match="2020-01-02 to 2020-01-15, none from 2021-01-01 to 2021-02-01"):
        session_range(sessions, np.datetime64("2021-01-01"), np.datetime64("2021-02-01"))


def test_further_figures_are_those_of_a_hand():
    # Long A, short C, then the other way round, then no book: gross 0.03, 0.01; turnover 2, 4.
    result = result_of(
        [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [NAN, NAN, NAN]], [[0.02, 0.0, -0.01], [0.01, 0.5, 0.02], [0, 0, 0]]
    )

    figures = further_figures(result, 10.0)

    rank_ics = np.array([1.0, 0.5])
    net = np.array([0.03 - 0.002, 0.01 - 0.004])
    assert figures["hit_rate"] == 1.0
    assert result.metrics["rank_ic_t"] == pytest.approx(0.75 / (rank_ics.std(ddof=1) / np.sqrt(2)))
    assert figures["annualised_volatility"] == pytest.approx(net.std(ddof=1) * np.sqrt(252))
    assert figures["break_even_cost_bps"] == pytest.approx(0.02 / 3 / 1e-4)
    assert figures["cost_a_year"] == pytest.approx(3 * 10e-4 * 252)
    assert figures["coverage"] == pytest.approx(6 / 9)


def test_break_even_cost_uses_the_mean_return_up():
    rng = np.random.default_rng(4)
    predictions, returns = rng.normal(size=(50, 6)), rng.normal(0, 0.02, size=(50, 6))
    even = further_figures(result_of(predictions, returns), 0.0)["break_even_cost_bps"]

    assert result_of(predictions, returns, cost_bps=even).performance.net_returns.mean() == pytest.approx(0, abs=1e-15)


def test_perfect_predictions_have_ic_one_and_slope_one():
    returns = np.random.default_rng(1).normal(0, 0.01, size=(60, 8))

    result, calibration = result_of(returns, returns), calibrate(returns, returns)

    assert result.metrics["ic"] == pytest.approx(1.0)
    assert result.metrics["rank_ic"] == pytest.approx(1.0)
    assert calibration.slope == pytest.approx(1.0)
    assert calibration.realised == pytest.approx(calibration.predicted)


@given(st.floats(0.01, 200), st.floats(0.01, 200), st.integers(0, 50))
def test_higher_costs_leave_less_at_every_session(low, more, seed):
    rng = np.random.default_rng(seed)
    predictions, returns = rng.normal(size=(20, 5)), rng.normal(0, 0.01, size=(20, 5))

    cheap, dear = (result_of(predictions, returns, cost_bps=bps).performance.net_returns for bps in (low, low + more))

    traded = result_of(predictions, returns).performance.turnover > 0
    assert (dear[traded] < cheap[traded]).all()
    assert (np.cumprod(1 + dear)[traded] < np.cumprod(1 + cheap)[traded]).all()


def test_figures_of_nothing_are_none_not_zero():
    nothing = np.full((3, 2), NAN)

    figures = further_figures(result_of(nothing, nothing), 5.0)

    assert {name: value for name, value in figures.items() if value is not None} == {"coverage": 0.0}


def test_calibration_bins_hold_what_a_hand_counts():
    # 2 sessions of 60 symbols: the lower half is predicted 1, the upper 2.
    predictions = np.tile(np.repeat([1.0, 2.0], 30), (2, 1))
    outcomes = np.array([np.repeat([0.0, 4.0], 30), np.repeat([2.0, 8.0], 30)])

    calibration = calibrate(predictions, outcomes, bins=10)

    assert calibration.predicted.tolist() == [1.0, 2.0]
    assert calibration.realised.tolist() == [1.0, 6.0]
    assert calibration.rows.tolist() == [60, 60]
    # The mean of two session means: their standard deviation (ddof 1) over sqrt(2).
    assert calibration.error == pytest.approx(
        [np.std([0, 2], ddof=1) / np.sqrt(2), np.std([4, 8], ddof=1) / np.sqrt(2)]
    )
    assert calibration.slope == pytest.approx(5.0)


@given(st.integers(0, 200), st.integers(1, 400), st.integers(1, 30))
def test_calibration_keeps_every_known_row_in_bins_of_enough(seed, rows, levels):
    rng = np.random.default_rng(seed)
    predictions = rng.integers(0, levels, size=(rows, 2)).astype(float)
    outcomes = np.where(rng.random((rows, 2)) < 0.1, NAN, rng.normal(size=(rows, 2)))
    known = np.isfinite(outcomes)

    calibration = calibrate(predictions, outcomes)

    assert calibration.rows.sum() == known.sum()
    assert len(calibration.rows) == 1 or calibration.rows.min() >= MIN_BIN_ROWS or not known.any()
    assert (np.diff(calibration.predicted) > 0).all()
    if known.any():
        assert np.average(calibration.realised, weights=calibration.rows) == pytest.approx(outcomes[known].mean())


def test_calibration_without_known_outcomes_has_no_bin():
    calibration = calibrate(np.ones((3, 2)), np.full((3, 2), NAN))

    assert (len(calibration.rows), calibration.slope) == (0, None)


def test_importance_is_that_of_the_booster_largest_gain_first():
    booster = make_booster(features=4, rounds=3)
    gain, splits = booster.feature_importance("gain"), booster.feature_importance("split")

    found = importances(booster, ("A", "B", "C", "D"))

    assert sum(each.gain_share for each in found) == pytest.approx(1.0)
    assert found[0].name == "ABCD"[int(np.argmax(gain))]
    assert found[0].gain_share == pytest.approx(gain.max() / gain.sum())
    assert {each.name: each.splits for each in found} == dict(zip("ABCD", splits.tolist(), strict=True))


def test_rolling_mean_leaves_unknown_sessions_out():
    means = rolling_mean(np.array([1.0, 3.0, NAN, 5.0, NAN, NAN]), 2)

    assert means[1:5].tolist() == [2.0, 3.0, 5.0, 5.0]
    assert np.isnan(means[[0, 5]]).all()
