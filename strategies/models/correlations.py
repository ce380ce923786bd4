"""How well predictions order the symbols of each session: IC and rank IC.

Owns: both correlations, and from how many symbols one is taken.
Must not know: models, books, periods.
Invariant: a session that cannot be measured is NaN, never 0.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from strategies.market.bars import FloatArray, IntArray

#: Fewest symbols with a prediction and a return from which a correlation is taken; two always correlate perfectly.
MIN_CROSS_SECTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlations:
    """How well predictions order the symbols of each session."""

    #: Pearson correlation of predictions and labels, `[sessions]`; NaN = too few symbols or no variation.
    ic: FloatArray
    #: Spearman correlation, ties sharing their average rank, `[sessions]`.
    rank_ic: FloatArray
    #: With a prediction and a label, `[sessions]`.
    symbols: IntArray


def correlations(predictions: FloatArray, labels: FloatArray) -> Correlations:
    """Return IC and rank IC of each session.

    Args:
        predictions: `[sessions, symbols]`; NaN = not priced.
        labels: What the predictions should have ordered, `[sessions, symbols]`; NaN = not known.
    """
    known = np.isfinite(predictions) & np.isfinite(labels)
    left, right = np.where(known, predictions, np.nan), np.where(known, labels, np.nan)
    return Correlations(
        ic=_correlate(left, right, known),
        rank_ic=_correlate(_ranks(left), _ranks(right), known),
        symbols=known.sum(axis=1),
    )


def _ranks(values: FloatArray) -> FloatArray:
    ranks: FloatArray = pd.DataFrame(values).rank(axis=1, method="average").to_numpy(dtype=np.float64)
    return ranks


def _correlate(left: FloatArray, right: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    count = known.sum(axis=1)
    usable = (count >= MIN_CROSS_SECTION) & _varies(left, known) & _varies(right, known)
    result = np.full(len(left), np.nan)
    if not usable.any():
        return result
    a, b = _centred(left[usable]), _centred(right[usable])
    result[usable] = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return result


def _varies(values: FloatArray, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    highest = np.where(known, values, -np.inf).max(axis=1, initial=-np.inf)
    lowest = np.where(known, values, np.inf).min(axis=1, initial=np.inf)
    varies: NDArray[np.bool_] = highest > lowest
    return varies


def _centred(values: FloatArray) -> FloatArray:
    # Scaled first: returns near the smallest floats would square to 0.
    scaled = values / np.nanmax(np.abs(values), axis=1, keepdims=True)
    centred: FloatArray = np.nan_to_num(scaled - np.nanmean(scaled, axis=1, keepdims=True))
    return centred
