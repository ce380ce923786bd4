"""Reference distributions: what each feature and the prediction looked like in training.

Owns: the statistics that drift is measured against.
Must not know: files, thresholds of drift.
Invariant: computed from the training period's rows alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import Float32Array, FloatArray

#: Name of the prediction beside the features.
PREDICTION = "prediction"
#: Levels of the stored quantiles: every percent from 0 (lowest value) to 1 (highest value).
LEVELS: FloatArray = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One column's values over the training rows."""

    name: str
    #: Training rows, with or without a value.
    rows: int
    #: Share of rows that are NaN or infinite, 0 to 1.
    nan_share: float
    #: Of the finite values; None where there is none.
    mean: float | None
    #: Population standard deviation of the finite values.
    sd: float | None
    #: At `LEVELS`, of the finite values; empty where there is none.
    quantiles: tuple[float, ...]


def describe(names: Sequence[str], features: Float32Array, predictions: FloatArray) -> tuple[Distribution, ...]:
    """Return the distribution of each feature, in order, and of the prediction.

    Args:
        names: Of the features.
        features: Raw features of the training rows, `[rows, features]`.
        predictions: The model's output for the same rows, `[rows]`.
    """
    columns = [_describe(name, features[:, index]) for index, name in enumerate(names)]
    return (*columns, _describe(PREDICTION, predictions))


def _describe(name: str, values: NDArray[np.floating]) -> Distribution:
    finite = values[np.isfinite(values)].astype(np.float64)
    share = 1.0 - len(finite) / len(values) if len(values) else 1.0
    if not len(finite):
        return Distribution(name=name, rows=len(values), nan_share=share, mean=None, sd=None, quantiles=())
    return Distribution(
        name=name,
        rows=len(values),
        nan_share=share,
        mean=float(finite.mean()),
        sd=float(finite.std()),
        quantiles=tuple(float(value) for value in np.quantile(finite, LEVELS)),
    )
