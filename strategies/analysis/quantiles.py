"""Quantile returns, measured by alphalens on the ranks that books are made of.

Owns: the table that alphalens wants, and how many quantiles a cross-section bears.
Must not know: bundles, plots, pages.
Invariant: equal predictions are ordered as books order them, by symbol, so that no session is left out for its
ties; a symbol's quantile depends on predictions alone, known outcome or not.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from strategies.construction import Construction, construct
from strategies.market.bars import FloatArray, IntArray, SessionArray

#: Most quantiles.
QUANTILES = 5
#: What alphalens calls the column of outcomes; it knows them by this pattern.
_OUTCOME = "1D"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """What came out of each quantile of predictions, the lowest first, `[quantiles]` each."""

    #: Mean outcome less the mean of its session, each session counting the same.
    mean: FloatArray
    #: Standard error of `mean` over sessions; NaN below two of them.
    error: FloatArray
    #: Rows with a known outcome.
    rows: IntArray
    #: Share of a quantile's symbols that were not in it the session before, mean over sessions; NaN below two.
    turnover: FloatArray
    #: Mean correlation of one session's ranks with those of the next; None = cannot be measured.
    rank_autocorrelation: float | None


def quantile_count(predictions: FloatArray) -> int:
    """Return how many quantiles half of the sessions can fill, at most `QUANTILES`; 0 = not two."""
    priced = np.isfinite(predictions).sum(axis=1)
    typical = int(np.median(priced)) if len(priced) else 0
    count = min(QUANTILES, typical)
    return count if count > 1 else 0


def measure_quantiles(
    sessions: SessionArray, symbols: Sequence[str], predictions: FloatArray, outcomes: FloatArray
) -> Quantiles:
    """Return what came out of each quantile; sessions that cannot fill them all are left out.

    Args:
        sessions: `[sessions]`.
        symbols: `[symbols]`.
        predictions: `[sessions, symbols]`; NaN = not priced.
        outcomes: `[sessions, symbols]`; NaN = not known.
    """
    count = quantile_count(predictions)
    factor = _factor(symbols, predictions, least=count) if count else np.full_like(predictions, np.nan)
    if not np.isfinite(factor).any():
        return _NOTHING
    table = _table(sessions, symbols, factor, outcomes)
    with warnings.catch_warnings():
        # Of packages that alphalens pulls in, while they are imported and called.
        warnings.simplefilter("ignore")
        from alphalens import performance, utils  # noqa: PLC0415 - takes seconds, and only reports need it

        table["factor_quantile"] = utils.quantize_factor(table, quantiles=count)
        mean, error = performance.mean_return_by_quantile(table, demeaned=True)
        turnover = [performance.quantile_turnover(table["factor_quantile"], each).mean() for each in mean.index]
        autocorrelation = float(performance.factor_rank_autocorrelation(table).mean())
    return Quantiles(
        mean=mean[_OUTCOME].to_numpy(dtype=np.float64),
        error=error[_OUTCOME].to_numpy(dtype=np.float64),
        rows=np.asarray(table.groupby("factor_quantile")[_OUTCOME].count(), dtype=np.int64),
        turnover=np.array(turnover, dtype=np.float64),
        rank_autocorrelation=autocorrelation if np.isfinite(autocorrelation) else None,
    )


_NOTHING = Quantiles(
    mean=np.empty(0),
    error=np.empty(0),
    rows=np.empty(0, dtype=np.int64),
    turnover=np.empty(0),
    rank_autocorrelation=None,
)


def _factor(symbols: Sequence[str], predictions: FloatArray, *, least: int) -> FloatArray:
    """Return ranks of each session's predictions, `[sessions, symbols]`, 0 less the rank that books give."""
    factor = np.full(predictions.shape, np.nan)
    for session, row in enumerate(predictions):
        priced = np.flatnonzero(np.isfinite(row))
        if len(priced) >= least:
            ranks = construct([symbols[at] for at in priced.tolist()], row[priced], Construction()).ranks
            factor[session, priced] = -ranks
    return factor


def _table(sessions: SessionArray, symbols: Sequence[str], factor: FloatArray, outcomes: FloatArray) -> pd.DataFrame:
    """Return one row for each rank, indexed as alphalens wants it."""
    session, symbol = np.nonzero(np.isfinite(factor))
    assets = np.array(list(symbols), dtype=object)
    index = pd.MultiIndex.from_arrays([pd.DatetimeIndex(sessions[session]), assets[symbol]], names=("date", "asset"))
    return pd.DataFrame({_OUTCOME: outcomes[session, symbol], "factor": factor[session, symbol]}, index=index)
