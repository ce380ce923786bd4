"""What a tear sheet measures beyond an evaluation: in and out of sample, calibration, importance, rolling means.

Owns: the border between sessions in and out of sample, and the figures of one side of it.
Must not know: bundles on disk, quantiles, plots, pages.
Invariant: a session before the test period is never out of sample; what cannot be measured is NaN or None, never 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from strategies.analysis.evaluation import BASIS_POINT, SESSIONS_A_YEAR, EvaluationResult
from strategies.errors import TrainingError
from strategies.market.bars import FloatArray, IntArray, SessionArray
from strategies.models.manifest import TrainingRecord

#: Fewest rows of a calibration bin, where there are as many at all.
MIN_BIN_ROWS = 30
#: Sessions of a rolling mean, a quarter of a year; shorter where the period is.
ROLLING_SESSIONS = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Predictions in bins of about equal counts, lowest first, `[bins]` each."""

    #: Mean prediction.
    predicted: FloatArray
    #: Mean outcome.
    realised: FloatArray
    #: Standard error of `realised`, sessions taken as the independent draws; NaN below two sessions.
    error: FloatArray
    #: Rows with a prediction and a known outcome.
    rows: IntArray

    @property
    def slope(self) -> float | None:
        """Return the slope of outcomes on predictions, bins weighted by rows; 1 = calibrated."""
        if len(self.rows) < 2:  # noqa: PLR2004 - a line needs two points
            return None
        aside = self.predicted - np.average(self.predicted, weights=self.rows)
        return float(np.sum(self.rows * aside * self.realised) / np.sum(self.rows * aside**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much one feature was used."""

    name: str
    #: Share of the loss that all splits took away, 0 to 1.
    gain_share: float
    #: Number of splits.
    splits: int


def split_at_test(sessions: SessionArray, training: TrainingRecord) -> tuple[slice, slice]:
    """Return which of these sessions are in sample and which are not; either range may be empty.

    All before the first session of the test period are in sample. A session between validation and test is too:
    labels of the validation period read its bars.
    """
    border = int(np.searchsorted(sessions, np.datetime64(training.test.first, "D")))
    return slice(0, border), slice(border, len(sessions))


def session_range(sessions: SessionArray, first: np.datetime64, last: np.datetime64) -> slice:
    """Return the range of sessions from one day to another, both included.

    Raises:
        TrainingError: There is no session in the range.
    """
    start, stop = np.searchsorted(sessions, first), np.searchsorted(sessions, last, side="right")
    if stop <= start:
        raise TrainingError(f"the snapshot has bars from {sessions[0]} to {sessions[-1]}, none from {first} to {last}")
    return slice(int(start), int(stop))


def further_figures(result: EvaluationResult, cost_bps: float) -> dict[str, float | None]:
    """Return the figures beside those of `evaluation.metrics`; None = cannot be measured.

    `hit_rate` is the share of measured sessions with a rank IC above 0; `annualised_volatility` the standard deviation
    (ddof 1) of returns after costs, times sqrt(252); `break_even_cost_bps` the cost at which the mean return before
    costs is used up; `cost_a_year` what trading costs a year at `cost_bps`; `coverage` the share of symbols and
    sessions with a prediction.
    """
    rank_ic, net = _measured(result.signal.rank_ic), _measured(result.performance.net_returns)
    traded = np.isfinite(result.performance.gross_returns)
    gross, turnover = result.performance.gross_returns[traded], result.performance.turnover[traded]
    return {
        "hit_rate": float((rank_ic > 0).mean()) if len(rank_ic) else None,
        "annualised_volatility": float(net.std(ddof=1) * np.sqrt(SESSIONS_A_YEAR)) if len(net) > 1 else None,
        "break_even_cost_bps": float(gross.mean() / turnover.mean() / BASIS_POINT) if turnover.sum() > 0 else None,
        "cost_a_year": float(turnover.mean() * cost_bps * BASIS_POINT * SESSIONS_A_YEAR) if len(turnover) else None,
        "coverage": float(np.isfinite(result.predictions).mean()) if result.predictions.size else None,
    }


def calibrate(predictions: FloatArray, outcomes: FloatArray, *, bins: int = 10) -> Calibration:
    """Return mean outcomes beside mean predictions, all sessions together.

    Equal predictions share a bin, and a bin of fewer than `MIN_BIN_ROWS` joins the next one, so that there may be
    fewer bins than asked for.

    Args:
        predictions: `[sessions, symbols]`; NaN = not priced.
        outcomes: In the unit of the predictions, `[sessions, symbols]`; NaN = not known.
        bins: Most bins.
    """
    known = np.isfinite(predictions) & np.isfinite(outcomes)
    values, realised, session = predictions[known], outcomes[known], np.nonzero(known)[0]
    count = max(1, min(bins, len(values) // MIN_BIN_ROWS))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])) if len(values) else np.empty(0)
    place = _joined(np.searchsorted(edges, values, side="right"))
    chosen = [place == each for each in np.unique(place)]
    return Calibration(
        predicted=np.array([values[mask].mean() for mask in chosen]),
        realised=np.array([realised[mask].mean() for mask in chosen]),
        error=np.array([_session_error(realised[mask], session[mask]) for mask in chosen]),
        rows=np.array([mask.sum() for mask in chosen], dtype=np.int64),
    )


def importances(booster: lgb.Booster, names: Sequence[str]) -> tuple[Importance, ...]:
    """Return every feature, that with the largest gain first, equal ones in the order of the columns."""
    gain, splits = booster.feature_importance("gain"), booster.feature_importance("split")
    total = gain.sum() or 1.0
    order = np.argsort(-gain, kind="stable")
    return tuple(
        Importance(name=names[column], gain_share=float(gain[column] / total), splits=int(splits[column]))
        for column in order
    )


def rolling_window(sessions: int) -> int:
    """Return the number of sessions of rolling means over a period."""
    return min(ROLLING_SESSIONS, max(5, sessions // 4))


def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    """Return the mean of the last `window` values, those that are NaN left out, `[sessions]`.

    NaN where fewer than half of them are known, or fewer than `window` have passed.
    """
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    means = np.full(len(values), np.nan)
    if len(values) < window:
        return means
    passed = counts[window:] - counts[:-window]
    enough = passed * 2 >= window
    means[window - 1 :][enough] = (sums[window:] - sums[:-window])[enough] / passed[enough]
    return means


def _joined(place: NDArray[np.intp]) -> NDArray[np.intp]:
    """Join every bin with too few rows to the next one, and the last to the one before."""
    counts = np.bincount(place)
    bin_of, current, rows = np.zeros(len(counts), dtype=np.intp), 0, 0
    for index, count in enumerate(counts):
        bin_of[index], rows = current, rows + int(count)
        if rows >= MIN_BIN_ROWS:
            current, rows = current + 1, 0
    if rows:
        bin_of[bin_of == current] = max(current - 1, 0)
    return bin_of[place]


def _session_error(outcomes: FloatArray, sessions: NDArray[np.intp]) -> float:
    """Outcomes of one session move together: their means are the draws, weighted by their rows."""
    _, at, rows = np.unique(sessions, return_inverse=True, return_counts=True)
    if len(rows) < 2:  # noqa: PLR2004 - a deviation needs two
        return float("nan")
    residuals = np.bincount(at, weights=outcomes - outcomes.mean())
    return float(np.sqrt((residuals**2).sum() * len(rows) / (len(rows) - 1)) / len(outcomes))


def _measured(values: FloatArray) -> FloatArray:
    measured: FloatArray = values[np.isfinite(values)]
    return measured
