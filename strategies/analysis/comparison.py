"""Two versions of a model beside each other: how similar their outputs are, and how each performed.

Owns: the measures of a pair of answers, of a session and of all sessions.
Must not know: where answers come from, limits, files.
Invariant: a session counts once, however many pairs it has; what cannot be measured is NaN, never 0. Two versions that
answer alike have agreement 1, active share 0 and rank correlation 1.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import Protocol

import numpy as np

from strategies.analysis.evaluation import tied_share
from strategies.analysis.outcomes import LabelStatus, Realised
from strategies.market.bars import FloatArray
from strategies.models.correlations import correlations

#: Symbol to target weight, of held symbols alone.
Book = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """What one version computed for a request."""

    #: Priced symbols, `[symbols]`.
    symbols: tuple[str, ...]
    #: Finite, `[symbols]`.
    predictions: FloatArray
    #: Target weights as fractions of one leg's capital, `[symbols]`.
    weights: FloatArray
    compute_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The outputs of both versions for one request, on the same bars as of the same session."""

    #: Equal for requests that differ in their session alone; turnover runs from one of them to the next.
    question: str
    session: date
    left: ModelOutput
    right: ModelOutput


class Returns(Protocol):
    """Realised returns of sessions."""

    def of(self, session: date, symbols: Sequence[str]) -> Realised:
        """Return the returns of these symbols that a version's predictions were about."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """One version on one session."""

    #: Sum of absolute weight changes from the same question's as-of before; NaN = there is none.
    turnover: float
    #: Pearson correlation of predictions and returns; NaN = see `outcome`.
    ic: float
    #: Spearman correlation of predictions and returns.
    rank_ic: float
    outcome: LabelStatus
    #: Symbols whose return is known.
    known_symbols: int
    #: Mean over the pairs of the share of the book that equal predictions left to the alphabet.
    tied_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """How similar two versions' outputs are, as means over the pairs of a session, or over sessions."""

    #: Spearman correlation of predictions, over all symbols that both priced in the session.
    rank_correlation: float
    #: Half the sum of absolute weight differences, as a fraction of one leg's capital: 0 equal, 2 disjoint both sides.
    active_share: float
    #: Share of long symbols that both have: 2 * common / (left + right); NaN = neither has any.
    long_overlap: float
    #: The same of the short legs.
    short_overlap: float
    #: Mean of both overlaps.
    agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionComparison:
    """Two versions on one session."""

    session: date
    pairs: int
    #: Symbols that both priced.
    symbols: int
    similarity: Similarity
    left: Performance
    right: Performance


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """One version over all sessions."""

    #: Means over the sessions on which each is known.
    turnover: float
    ic: float
    rank_ic: float
    tied_share: float
    #: Status of the labels to the number of its sessions.
    sessions: Mapping[LabelStatus, int]
    #: Milliseconds that answers took, over all pairs.
    compute_ms_p50: float
    compute_ms_p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions beside each other."""

    #: Ascending.
    sessions: tuple[SessionComparison, ...]
    pairs: int
    #: Pairs in which one version priced symbols that the other did not; their predictions are compared
    #: on the common symbols, a symbol not priced has weight 0.
    symbol_mismatches: int
    similarity: Similarity
    left: Total
    right: Total


@dataclass(slots=True)
class _Day:
    """Running figures of a session while its pairs are read."""

    pairs: int = 0
    active_shares: list[float] = field(default_factory=list)
    long_overlaps: list[float] = field(default_factory=list)
    short_overlaps: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    #: Left and right, a pair each.
    tied_shares: list[tuple[float, float]] = field(default_factory=list)
    #: Symbol to both predictions. A prediction does not depend on who else was asked, so that one of each is enough.
    predictions: dict[str, tuple[float, float]] = field(default_factory=dict)


def compare(pairs: Iterable[Pair], left: Returns | None, right: Returns | None) -> Comparison:
    """Return two versions beside each other; pairs are taken one by one and not kept.

    Args:
        pairs: In any order.
        left: Realised returns by the left version's label; None = not known.
        right: The same by the right version's.
    """
    days: defaultdict[date, _Day] = defaultdict(_Day)
    books: defaultdict[str, dict[date, tuple[Book, Book]]] = defaultdict(dict)
    timings: tuple[list[float], list[float]] = [], []
    symbol_mismatches = 0
    for pair in pairs:
        _add(days[pair.session], pair)
        books[pair.question][pair.session] = _book(pair.left), _book(pair.right)
        timings[0].append(pair.left.compute_ms)
        timings[1].append(pair.right.compute_ms)
        symbol_mismatches += set(pair.left.symbols) != set(pair.right.symbols)
    turnovers = _turnovers(books)
    sessions = tuple(_session(day, days[day], turnovers[day], (left, right)) for day in sorted(days))
    return Comparison(
        sessions=sessions,
        pairs=len(timings[0]),
        symbol_mismatches=symbol_mismatches,
        similarity=_mean_similarity([each.similarity for each in sessions]),
        left=_total([each.left for each in sessions], timings[0]),
        right=_total([each.right for each in sessions], timings[1]),
    )


def active_share(left: Book, right: Book) -> float:
    """Return half the sum of absolute weight differences; a symbol that is not held has weight 0."""
    return 0.5 * _distance(left, right)


def overlap(left: set[str], right: set[str]) -> float:
    """Return twice the common symbols over all of both; NaN where neither has any."""
    total = len(left) + len(right)
    return 2 * len(left & right) / total if total else float("nan")


def _add(day: _Day, pair: Pair) -> None:
    left, right = _book(pair.left), _book(pair.right)
    longs = overlap(_leg(left, 1), _leg(right, 1))
    shorts = overlap(_leg(left, -1), _leg(right, -1))
    day.pairs += 1
    day.active_shares.append(active_share(left, right))
    day.long_overlaps.append(longs)
    day.short_overlaps.append(shorts)
    day.agreements.append(_mean([longs, shorts]))
    day.tied_shares.append(
        (tied_share(pair.left.predictions, pair.left.weights), tied_share(pair.right.predictions, pair.right.weights))
    )
    theirs = dict(zip(pair.right.symbols, pair.right.predictions.tolist(), strict=True))
    for symbol, prediction in zip(pair.left.symbols, pair.left.predictions.tolist(), strict=True):
        if symbol in theirs:
            day.predictions[symbol] = prediction, theirs[symbol]


def _book(output: ModelOutput) -> Book:
    return {
        symbol: weight for symbol, weight in zip(output.symbols, output.weights.tolist(), strict=True) if weight != 0
    }


def _leg(book: Book, sign: int) -> set[str]:
    return {symbol for symbol, weight in book.items() if weight * sign > 0}


def _distance(left: Book, right: Book) -> float:
    # In one order: sums of floats must not depend on the order of a set.
    symbols = sorted(left.keys() | right.keys())
    return sum(abs(left.get(symbol, 0.0) - right.get(symbol, 0.0)) for symbol in symbols)


def _turnovers(books: Mapping[str, Mapping[date, tuple[Book, Book]]]) -> Mapping[date, tuple[list[float], list[float]]]:
    turnovers: defaultdict[date, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for by_session in books.values():
        for before, after in pairwise(sorted(by_session)):
            for side in (0, 1):
                turnovers[after][side].append(_distance(by_session[before][side], by_session[after][side]))
    return turnovers


def _session(
    session: date, day: _Day, turnovers: tuple[list[float], list[float]], returns: tuple[Returns | None, Returns | None]
) -> SessionComparison:
    symbols = sorted(day.predictions)
    both = np.array([day.predictions[symbol] for symbol in symbols], dtype=np.float64).reshape(-1, 2)
    similarity = Similarity(
        rank_correlation=float(correlations(both[None, :, 0], both[None, :, 1]).rank_ic[0]),
        active_share=_mean(day.active_shares),
        long_overlap=_mean(day.long_overlaps),
        short_overlap=_mean(day.short_overlaps),
        agreement=_mean(day.agreements),
    )
    performances = [
        _performance(
            both[:, side],
            _realised(returns[side], session, symbols),
            turnover=_mean(turnovers[side]),
            tied=_mean([tied[side] for tied in day.tied_shares]),
        )
        for side in (0, 1)
    ]
    return SessionComparison(
        session=session,
        pairs=day.pairs,
        symbols=len(symbols),
        similarity=similarity,
        left=performances[0],
        right=performances[1],
    )


def _realised(returns: Returns | None, session: date, symbols: Sequence[str]) -> Realised:
    if returns is None:
        return Realised(outcome=LabelStatus.NOT_MEASURABLE, labels=np.full(len(symbols), np.nan))
    return returns.of(session, symbols)


def _performance(predictions: FloatArray, realised: Realised, *, turnover: float, tied: float) -> Performance:
    signal = correlations(predictions[None, :], realised.labels[None, :])
    unmeasured = realised.outcome is LabelStatus.KNOWN and not np.isfinite(signal.rank_ic[0])
    return Performance(
        turnover=turnover,
        ic=float(signal.ic[0]),
        rank_ic=float(signal.rank_ic[0]),
        outcome=LabelStatus.NOT_MEASURABLE if unmeasured else realised.outcome,
        known_symbols=int(np.isfinite(realised.labels).sum()),
        tied_share=tied,
    )


def _total(performances: Sequence[Performance], milliseconds: Sequence[float]) -> Total:
    p50, p99 = np.percentile(milliseconds, (50, 99)).tolist() if milliseconds else (float("nan"),) * 2
    return Total(
        turnover=_mean([each.turnover for each in performances]),
        ic=_mean([each.ic for each in performances]),
        rank_ic=_mean([each.rank_ic for each in performances]),
        tied_share=_mean([each.tied_share for each in performances]),
        sessions={status: sum(each.outcome is status for each in performances) for status in LabelStatus},
        compute_ms_p50=p50,
        compute_ms_p99=p99,
    )


def _mean_similarity(sessions: Sequence[Similarity]) -> Similarity:
    return Similarity(
        rank_correlation=_mean([each.rank_correlation for each in sessions]),
        active_share=_mean([each.active_share for each in sessions]),
        long_overlap=_mean([each.long_overlap for each in sessions]),
        short_overlap=_mean([each.short_overlap for each in sessions]),
        agreement=_mean([each.agreement for each in sessions]),
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean of what was measured; NaN where nothing was."""
    measured = [value for value in values if np.isfinite(value)]
    return sum(measured) / len(measured) if measured else float("nan")
