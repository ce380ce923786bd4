"""Parity where it counts: the predictions of one model on two sets of features, and the books made of them.

Owns: comparing session by session, and finding the feature behind a book that differs.
Must not know: where features, models and bars come from.
Invariant: both sides get the same rows, the same booster and the same construction; only the features differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from strategies.construction import Construction, construct
from strategies.market.bars import BoolArray, Float32Array, FloatArray, SessionArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why one symbol's prediction differs on one session."""

    session: date
    symbol: str
    #: What the book own_weights, Qlib's features first.
    weights: tuple[float, float]
    predictions: tuple[float, float]
    #: Features that each alone bring the other prediction about; empty where only several together do.
    features: tuple[str, ...]
    #: Their values, Qlib's first.
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookParity:
    """One period, two sets of features."""

    sessions: int
    predictions: int
    equal_predictions: int
    equal_books: int
    #: Largest difference of a prediction, and the standard deviation of predictions beside it.
    largest: float
    spread: float
    causes: tuple[Cause, ...]

    @property
    def book_share(self) -> float:
        """Return the share of sessions whose books are equal."""
        return self.equal_books / self.sessions if self.sessions else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of a period, `[sessions, symbols, features]` each, and which of them are priced."""

    symbols: tuple[str, ...]
    sessions: SessionArray
    names: tuple[str, ...]
    qlib: Float32Array
    ours: Float32Array
    priced: BoolArray


def compare_books(booster: lgb.Booster, rows: Rows, construction: Construction | None = None) -> BookParity:
    """Return how many predictions and books are equal, and why the others are not.

    Args:
        booster: Predicts from the features in the order of `rows.names`.
        rows: What to predict for.
        construction: Default three symbols a side.
    """
    construction = construction or Construction()
    qlib, ours = _predict(booster, rows.qlib, rows.priced), _predict(booster, rows.ours, rows.priced)
    books = 0
    causes: list[Cause] = []
    days = [day for day in range(len(rows.sessions)) if rows.priced[day].any()]
    for day in days:
        at = np.flatnonzero(rows.priced[day])
        symbols = [rows.symbols[symbol] for symbol in at]
        qlib_weights = construct(symbols, qlib[day, at], construction).weights
        own_weights = construct(symbols, ours[day, at], construction).weights
        if (qlib_weights == own_weights).all():
            books += 1
            continue
        moved = _moved(qlib[day, at], ours[day, at], qlib_weights, own_weights)
        pairs = [(int(at[k]), (float(qlib_weights[k]), float(own_weights[k]))) for k in moved]
        causes.extend(_cause(booster, rows, (day, symbol), weights) for symbol, weights in pairs)
    priced = rows.priced
    return BookParity(
        sessions=len(days),
        predictions=int(priced.sum()),
        equal_predictions=int((qlib == ours)[priced].sum()),
        equal_books=books,
        largest=float(np.abs(qlib - ours)[priced].max(initial=0.0)),
        spread=float(qlib[priced].std()) if priced.any() else 0.0,
        causes=tuple(causes),
    )


def _predict(booster: lgb.Booster, features: Float32Array, priced: BoolArray) -> FloatArray:
    predictions = np.full(priced.shape, np.nan)
    if priced.any():
        predictions[priced] = booster.predict(np.ascontiguousarray(features[priced]), num_threads=2)
    return predictions


def _moved(
    qlib: FloatArray, ours: FloatArray, qlib_weights: FloatArray, own_weights: FloatArray
) -> Sequence[int] | NDArray[np.intp]:
    """Return the symbols whose prediction differs, those that changed their weight if any of them did."""
    differ = qlib != ours
    moved = np.flatnonzero(differ & (qlib_weights != own_weights))
    return moved if len(moved) else np.flatnonzero(differ)


def _cause(booster: lgb.Booster, rows: Rows, cell: tuple[int, int], weights: tuple[float, float]) -> Cause:
    qlib_weights, own = rows.qlib[cell], rows.ours[cell]
    differ = np.flatnonzero(~((qlib_weights == own) | (np.isnan(qlib_weights) & np.isnan(own))))
    trials = np.repeat(qlib_weights[None, :], len(differ) + 2, axis=0)
    trials[-1] = own
    for trial, column in enumerate(differ):
        trials[trial, column] = own[column]
    predictions = booster.predict(np.ascontiguousarray(trials), num_threads=1)
    guilty = [column for trial, column in enumerate(differ) if predictions[trial] != predictions[-2]]
    return Cause(
        session=rows.sessions[cell[0]].astype(object),
        symbol=rows.symbols[cell[1]],
        weights=weights,
        predictions=(float(predictions[-2]), float(predictions[-1])),
        features=tuple(rows.names[column] for column in guilty),
        values=tuple((float(qlib_weights[column]), float(own[column])) for column in guilty),
    )
