"""Feature processors: column-wise transforms fitted once in training and carried by the bundle.

Owns: the processors a bundle may name, their fitting and their application.
Must not know: files, sessions, symbols beside the row at hand.
Invariant: a processed row depends on that row and the fitted state alone, so serving one symbol equals a backfill;
Qlib's per-session processors (CSZScoreNorm, CSZFillna) would break that and are therefore not offered for features.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from strategies.errors import FeatureSetMismatch
from strategies.market.bars import Float32Array, FloatArray

ProcessorKind = Literal["robust_zscore", "zscore", "minmax", "fillna"]

#: Column state; None = the column had no value in the fit period and stays NaN.
Column = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)] | None, ...], Field(max_length=10_000)]
#: RobustZScoreNorm of Qlib: makes the median absolute deviation estimate a standard deviation of normal values.
MAD_TO_SD = 1.4826


class _Processor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scaling(_Processor):
    """Subtract the centre and divide by the scale of each column; NaN stays NaN."""

    kind: Literal["robust_zscore", "zscore", "minmax"]
    #: `[features]`
    center: Column
    #: `[features]`
    scale: Column
    #: Results beyond ±clip are set to ±clip; None = no bound.
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def width(self) -> int | None:
        """Return the number of columns it was fitted on."""
        return len(self.center)

    def apply(self, values: FloatArray) -> FloatArray:
        """Return the scaled values, `[rows, features]`."""
        scaled = (values - _array(self.center)) / _array(self.scale)
        return scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)


class Fillna(_Processor):
    """Put one value in place of NaN."""

    kind: Literal["fillna"] = "fillna"
    value: Annotated[float, Field(allow_inf_nan=False)] = 0.0

    @property
    def width(self) -> int | None:
        """Return None: it takes any number of columns."""
        return None

    def apply(self, values: FloatArray) -> FloatArray:
        """Return the values without NaN, `[rows, features]`."""
        return np.where(np.isnan(values), self.value, values)


Processor = Annotated[Scaling | Fillna, Field(discriminator="kind")]


def fit_processors(kinds: Sequence[ProcessorKind], features: Float32Array) -> tuple[Scaling | Fillna, ...]:
    """Return the processors fitted in order, each on what the ones before it leave.

    Args:
        kinds: `robust_zscore` (median, 1.4826 x MAD, clipped at 3), `zscore` (mean, sd with ddof 0), `minmax` (lowest
            value, range) or `fillna` (0).
        features: Rows of the fit period only, `[rows, features]`; NaN and infinities are left out of the fit.

    Source: pyqlib 0.9.7 `qlib/data/dataset/processor.py`; constant columns keep a scale of 1.
    """
    fitted: list[Scaling | Fillna] = []
    for kind in kinds:
        seen = apply_processors(fitted, features).astype(np.float64)
        fitted.append(Fillna() if kind == "fillna" else _fit_scaling(kind, seen))
    return tuple(fitted)


def apply_processors(processors: Sequence[Scaling | Fillna], features: Float32Array) -> Float32Array:
    """Return the processed features, `[rows, features]` float32; the input itself where there is no processor.

    Raises:
        FeatureSetMismatch: A processor was fitted on another number of columns.
    """
    if not processors:
        return features
    values = features.astype(np.float64)
    for processor in processors:
        if processor.width not in (None, values.shape[1]):
            raise FeatureSetMismatch(f"{processor.kind} was fitted on {processor.width} columns, was {values.shape[1]}")
        values = processor.apply(values)
    return values.astype(np.float32)


def _fit_scaling(kind: Literal["robust_zscore", "zscore", "minmax"], values: FloatArray) -> Scaling:
    columns = [_finite(values[:, index]) for index in range(values.shape[1])]
    states = [_STATES[kind](column) if column.size else None for column in columns]
    return Scaling(
        kind=kind,
        center=tuple(state and state[0] for state in states),
        scale=tuple(state and (state[1] or 1.0) for state in states),
        clip=3.0 if kind == "robust_zscore" else None,
    )


def _robust(column: FloatArray) -> tuple[float, float]:
    median = float(np.median(column))
    return median, (float(np.median(np.abs(column - median))) + 1e-12) * MAD_TO_SD


def _standard(column: FloatArray) -> tuple[float, float]:
    return float(column.mean()), float(column.std())


def _minmax(column: FloatArray) -> tuple[float, float]:
    low, high = float(column.min()), float(column.max())
    return low, high - low


_STATES = {"robust_zscore": _robust, "zscore": _standard, "minmax": _minmax}


def _finite(column: FloatArray) -> FloatArray:
    finite: FloatArray = column[np.isfinite(column)]
    return finite


def _array(column: tuple[float | None, ...]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in column], dtype=np.float64)
