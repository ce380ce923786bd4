"""Evaluation: what predictions were worth, session by session, on returns that came after.

Owns: IC, rank IC and ICIR; the top-N/bottom-N portfolio after costs, made by the same `construct` as serving; the
predictions of a model for a range of samples and their measures.
Must not know: how models are trained, how periods were chosen, files, plots.
Invariant: what cannot be measured is NaN in an array and None in the metrics, never 0; rows that serving would not
price are not predicted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from strategies.construction import Construction, construct
from strategies.market.bars import FloatArray, IntArray, SessionArray
from strategies.models.bundle import Predictor
from strategies.models.configuration import TrainingConfig
from strategies.models.correlations import Correlations, correlations
from strategies.models.manifest import LabelProcessor
from strategies.models.samples import Samples, transform_labels

SESSIONS_A_YEAR = 252
#: One basis point as a fraction.
BASIS_POINT = 1e-4
#: Share of a book that ties may decide before anybody is warned.
MAX_TIED_SHARE = 0.05
#: Standard deviations within which 95 % of a normal distribution are.
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class PortfolioPerformance:
    """What the top-N/bottom-N portfolio earned, each session's return being that of the book formed on it."""

    #: Before costs, as a fraction of the capital of one side (gross exposure is 2), `[sessions]`; NaN = no book.
    gross_returns: FloatArray
    #: After costs, `[sessions]`.
    net_returns: FloatArray
    #: Sum of absolute weight changes from the book before, `[sessions]`; from nothing at the first book.
    turnover: FloatArray
    #: Symbols of books whose return is not known, counted as 0, over all sessions.
    unknown_returns: int
    #: Different predictions among the priced symbols, `[sessions]`; NaN = no book.
    distinct_predictions: FloatArray
    #: Share of the book's weight that equal predictions left to the alphabet, 0 to 1, `[sessions]`; see `tied_share`.
    tied_shares: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """What predictions are compared with, and the book that is made of them."""

    #: How labels are transformed within each session before they are compared with predictions.
    label_processor: LabelProcessor
    construction: Construction
    #: Basis points of each unit of weight bought or sold.
    cost_bps: float
    #: Basis points a year of each unit of weight held short.
    borrow_bps_a_year: float

    @classmethod
    def of(cls, config: TrainingConfig) -> Self:
        """Return how a training evaluates its models."""
        return cls(
            label_processor=config.label_processor,
            construction=config.sides,
            cost_bps=config.cost_bps,
            borrow_bps_a_year=config.borrow_bps_a_year,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What predictions were worth on some sessions."""

    #: `[sessions]`
    sessions: SessionArray
    #: `[symbols]`
    symbols: tuple[str, ...]
    #: `[sessions, symbols]`; NaN = not priced.
    predictions: FloatArray
    #: What `signal` compares predictions with, transformed as the spec asks, `[sessions, symbols]`.
    labels: FloatArray
    #: Of holding a symbol for the one session that a book is held, `[sessions, symbols]`; NaN = not known.
    returns: FloatArray
    signal: Correlations
    performance: PortfolioPerformance
    metrics: dict[str, float | None]


def perform(
    symbols: Sequence[str],
    predictions: FloatArray,
    returns: FloatArray,
    *,
    construction: Construction,
    cost_bps: float,
    borrow_bps_a_year: float = 0.0,
) -> PortfolioPerformance:
    """Return what the book of each session earned until the next one.

    A book is formed on every session with enough priced symbols, on all of them, known return or not; a session in
    which no held symbol's return is known earns NaN. Weights are restored to target at each session.

    Args:
        symbols: `[symbols]`.
        predictions: `[sessions, symbols]`; NaN = not priced.
        returns: Of holding a symbol for the one session that the book of this session is held, `[sessions, symbols]`.
        construction: Symbols on each side.
        cost_bps: Basis points of each unit of weight bought or sold.
        borrow_bps_a_year: Basis points a year of each unit of weight held short, for each session that it is held.
    """
    weights = _books(symbols, predictions, construction)
    formed = np.asarray(np.isfinite(weights).all(axis=1))
    held = formed[:, None] & (weights != 0)
    known = held & np.isfinite(returns)
    gross = np.where(known, np.nan_to_num(weights) * np.nan_to_num(returns), 0.0).sum(axis=1)
    gross[~known.any(axis=1)] = np.nan
    turnover = _turnover(weights, formed)
    measured = np.isfinite(gross)
    borrowed = -np.minimum(np.nan_to_num(weights), 0.0).sum(axis=1)
    borrowing = borrowed * borrow_bps_a_year * BASIS_POINT / SESSIONS_A_YEAR
    return PortfolioPerformance(
        gross_returns=gross,
        net_returns=gross - turnover * cost_bps * BASIS_POINT - borrowing,
        turnover=turnover,
        unknown_returns=int((held & ~known)[measured].sum()),
        distinct_predictions=_of_books(predictions, weights, lambda row, _: float(np.unique(row).size)),
        tied_shares=_of_books(predictions, weights, tied_share),
    )


def metrics(signal: Correlations, performance: PortfolioPerformance) -> dict[str, float | None]:
    """Return the figures that a report shows, in its order; None = cannot be measured from these sessions.

    `icir` and `rank_icir` are mean over standard deviation (ddof 1) of the sessions; returns and drawdown are
    fractions after costs of the capital of one side, `annualised_return` compounds to 252 sessions, `sharpe` is
    the mean over the standard deviation (ddof 1) times sqrt(252), `max_drawdown` is 0 or below.
    """
    net = _measured(performance.net_returns)
    wealth = np.cumprod(1.0 + net, dtype=np.float64)
    return {
        "ic": _mean(signal.ic),
        "icir": _ratio(signal.ic),
        "rank_ic": _mean(signal.rank_ic),
        "rank_icir": _ratio(signal.rank_ic),
        "ic_sessions": float(np.isfinite(signal.ic).sum()),
        "cumulative_return": float(wealth[-1] - 1.0) if len(net) else None,
        "cumulative_return_before_costs": _compound(performance.gross_returns),
        "annualised_return": _annualised(wealth),
        "sharpe": _scaled(_ratio(performance.net_returns), np.sqrt(SESSIONS_A_YEAR)),
        "max_drawdown": float(drawdown(net).min()) if len(net) else None,
        "win_share": float((net > 0).mean()) if len(net) else None,
        "turnover": _mean(performance.turnover),
        "sessions": float(len(net)),
        "unknown_returns": float(performance.unknown_returns),
        "distinct_predictions": _mean(performance.distinct_predictions),
        "tied_share": _mean(performance.tied_shares),
        "rank_ic_t": t_statistic(signal.rank_ic),
        "rank_ic_by_chance": chance_rank_ic(signal),
    }


def tied_share(predictions: FloatArray, weights: FloatArray) -> float:
    """Return the share of a book's gross weight that is held by the alphabet, 0 to 1; 0 for an empty book.

    A held symbol counts where another with the same prediction is not held on its side: ties are ranked by symbol, so
    the model did not choose between the two.

    Args:
        predictions: Finite, `[symbols]`.
        weights: Of the book, `[symbols]`.
    """
    gross = np.abs(weights).sum()
    if gross == 0:
        return 0.0
    by_alphabet = np.zeros(len(weights), dtype=np.bool_)
    for side in (weights > 0, weights < 0):
        by_alphabet |= side & np.isin(predictions, predictions[~side])
    return float(np.abs(weights[by_alphabet]).sum() / gross)


def ranking_fault(figures: Mapping[str, float | None]) -> str | None:
    """Return why a model with these metrics cannot rank symbols, as a clause; None where it can, or nothing is known.

    Args:
        figures: Those of `metrics`, or of a registry; older ones lack what this reads.
    """
    distinct, tied = figures.get("distinct_predictions"), figures.get("tied_share")
    if distinct is None or tied is None or tied <= MAX_TIED_SHARE:
        return None
    return (
        f"{distinct:.1f} distinct predictions a session: equal predictions left {tied:.0%} of the book to the alphabet"
    )


def t_statistic(values: FloatArray) -> float | None:
    """Return the t-statistic of the mean of the sessions that were measured, taken as independent, `[sessions]`."""
    ratio = _ratio(values)
    return _scaled(ratio, float(np.sqrt(np.isfinite(values).sum())))


def chance_rank_ic(signal: Correlations) -> float | None:
    """Return the rank IC that 19 of 20 random orders stay below in magnitude: 1.96 standard errors of the mean.

    A session of n symbols in random order has a rank IC of mean 0 and variance 1 / (n - 1), whatever the returns.
    """
    measured = signal.symbols[np.isfinite(signal.rank_ic)]
    if not len(measured):
        return None
    return float(NORMAL_95 * np.sqrt((1.0 / (measured - 1)).sum()) / len(measured))


def drawdown(returns: FloatArray) -> FloatArray:
    """Return the loss from the highest wealth so far, `[sessions]`, 0 or below; the start counts as a height."""
    wealth = np.cumprod(1.0 + returns)
    losses: FloatArray = wealth / np.maximum.accumulate(np.maximum(wealth, 1.0)) - 1.0
    return losses


def predict_period(predictor: Predictor, samples: Samples, period: slice) -> FloatArray:
    """Return predictions for a range of the samples' sessions, `[sessions, symbols]`; NaN = not priced."""
    eligible = samples.eligible[period]
    predictions = np.full(eligible.shape, np.nan)
    predictions[eligible] = predictor.predict(samples.features[period][eligible])
    return predictions


def evaluate(predictor: Predictor, samples: Samples, period: slice, spec: EvaluationSpec) -> EvaluationResult:
    """Return what a model's predictions for a range of the samples' sessions were worth."""
    predictions = predict_period(predictor, samples, period)
    return evaluate_predictions(predictions, samples, np.arange(period.start, period.stop), spec)


def evaluate_predictions(
    predictions: FloatArray, samples: Samples, at: IntArray, spec: EvaluationSpec
) -> EvaluationResult:
    """Return what predictions were worth, whichever models they came from.

    Args:
        predictions: `[sessions, symbols]`; NaN = not priced.
        samples: Labels and returns.
        at: Indices of these sessions among the samples', ascending.
        spec: Transform of labels, construction and costs.
    """
    labels, returns = transform_labels(samples.labels[at], spec.label_processor), samples.returns[at]
    signal = correlations(predictions, labels)
    performance = perform(
        samples.symbols,
        predictions,
        returns,
        construction=spec.construction,
        cost_bps=spec.cost_bps,
        borrow_bps_a_year=spec.borrow_bps_a_year,
    )
    return EvaluationResult(
        sessions=samples.sessions[at],
        symbols=samples.symbols,
        predictions=predictions,
        labels=labels,
        returns=returns,
        signal=signal,
        performance=performance,
        metrics=metrics(signal, performance),
    )


def _books(symbols: Sequence[str], predictions: FloatArray, construction: Construction) -> FloatArray:
    """Weights of each session's book, `[sessions, symbols]`; a session without a book is NaN."""
    weights = np.full(predictions.shape, np.nan)
    for session, row in enumerate(predictions):
        priced = np.flatnonzero(np.isfinite(row))
        if not len(priced):
            continue
        book = construct([symbols[index] for index in priced.tolist()], row[priced], construction)
        if book.used_top_n or book.used_bottom_n:
            weights[session] = 0.0
            weights[session, priced] = book.weights
    return weights


def _of_books(
    predictions: FloatArray, weights: FloatArray, measure: Callable[[FloatArray, FloatArray], float]
) -> FloatArray:
    """Return a measure of each book, `[sessions]`; NaN without a book."""
    found = np.full(len(predictions), np.nan)
    for session in np.flatnonzero(np.isfinite(weights).all(axis=1)):
        priced = np.isfinite(predictions[session])
        found[session] = measure(predictions[session, priced], weights[session, priced])
    return found


def _turnover(weights: FloatArray, formed: NDArray[np.bool_]) -> FloatArray:
    turnover = np.full(len(weights), np.nan)
    books = weights[formed]
    before = np.vstack([np.zeros((1, weights.shape[1])), books[:-1]]) if len(books) else books
    turnover[formed] = np.abs(books - before).sum(axis=1)
    return turnover


def _measured(values: FloatArray) -> FloatArray:
    measured: FloatArray = values[np.isfinite(values)]
    return measured


def _mean(values: FloatArray) -> float | None:
    measured = _measured(values)
    return float(measured.mean()) if len(measured) else None


def _ratio(values: FloatArray) -> float | None:
    measured = _measured(values)
    if len(measured) < 2 or measured.max() == measured.min():  # noqa: PLR2004 - a deviation needs two
        return None
    return float(measured.mean() / measured.std(ddof=1))


def _scaled(ratio: float | None, factor: float) -> float | None:
    return None if ratio is None else float(ratio * factor)


def _compound(returns: FloatArray) -> float | None:
    measured = _measured(returns)
    return float(np.prod(1.0 + measured) - 1.0) if len(measured) else None


def _annualised(wealth: FloatArray) -> float | None:
    if not len(wealth) or wealth[-1] <= 0:
        return None
    return float(wealth[-1] ** (SESSIONS_A_YEAR / len(wealth)) - 1.0)
