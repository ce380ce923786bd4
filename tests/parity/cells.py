"""Parity cell by cell: the engine's features beside Qlib's, and both beside the reference.

Owns: what is counted and how a deviation is measured.
Must not know: where bars and features come from, how a page looks.
Invariant: every cell that Qlib has a row for is counted, once, for each feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import BoolArray, Float32Array

#: Float32 steps by which a value counts as more than rounding away.
NEAR_STEPS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellParity:
    """One feature over all symbols and sessions.

    Deviations are relative to the larger of the cell's own magnitude and the feature's median magnitude, so that a
    difference of two nearly equal numbers does not count as a large deviation because it happens to lie near zero.
    """

    name: str
    cells: int
    #: Cells where exactly one of Qlib and the engine has NaN.
    nan_differs: int
    #: Cells with the same bits as Qlib's, both NaN included.
    equal_to_qlib: int
    #: Largest deviation of the engine from Qlib: absolute, then relative.
    largest_absolute: float
    largest: float
    #: Largest relative deviation from the reference, Qlib's and the engine's.
    qlib_from_reference: float
    ours_from_reference: float
    #: Cells with the reference's bits, the engine's; cells more than `NEAR_STEPS` float32 steps from it, Qlib's.
    ours_exact: int
    qlib_off: int


class Tally:
    """Counts blocks of cells, feature by feature.

    Args:
        names: Features in order.
        scales: Median magnitude of each feature, `[features]`; see `scales_of`.
    """

    def __init__(self, names: Sequence[str], scales: NDArray[np.float64]) -> None:
        self.names, self.scales = tuple(names), scales
        count = len(self.names)
        self._counts = {
            key: np.zeros(count, np.int64) for key in ("nan_differs", "equal_to_qlib", "ours_exact", "qlib_off")
        }
        self._peaks = {
            key: np.zeros(count)
            for key in ("largest_absolute", "largest", "qlib_from_reference", "ours_from_reference")
        }
        self._cells = 0

    def add(self, qlib: Float32Array, ours: Float32Array, reference: Float32Array, exists: BoolArray) -> None:
        """Count a block, `[..., features]` each; only rows that exist."""
        theirs, own, truth = (values[exists].astype(np.float64) for values in (qlib, ours, reference))
        self._cells += len(own)
        scale = np.maximum(np.abs(np.nan_to_num(truth, posinf=0.0, neginf=0.0)), self.scales)
        gap = _gap(theirs, own)
        self._counts["nan_differs"] += (np.isnan(theirs) != np.isnan(own)).sum(axis=0)
        self._counts["equal_to_qlib"] += _same(theirs, own).sum(axis=0)
        self._counts["ours_exact"] += _same(own, truth).sum(axis=0)
        steps = np.spacing(scale.astype(np.float32)).astype(np.float64)
        self._counts["qlib_off"] += (_gap(theirs, truth) > NEAR_STEPS * steps).sum(axis=0)
        self._peak("largest_absolute", gap)
        self._peak("largest", gap / scale)
        self._peak("qlib_from_reference", _gap(theirs, truth) / scale)
        self._peak("ours_from_reference", _gap(own, truth) / scale)

    def result(self) -> tuple[CellParity, ...]:
        """Return what was counted, in the order of the features."""
        return tuple(self._one(column) for column in range(len(self.names)))

    def _one(self, column: int) -> CellParity:
        counts = {key: int(values[column]) for key, values in self._counts.items()}
        peaks = {key: float(values[column]) for key, values in self._peaks.items()}
        return CellParity(name=self.names[column], cells=self._cells, **counts, **peaks)  # type: ignore[arg-type]  # whole numbers and fractions by name

    def _peak(self, key: str, values: NDArray[np.float64]) -> None:
        self._peaks[key] = np.maximum(self._peaks[key], values.max(axis=0, initial=0.0))


def scales_of(features: Float32Array, exists: BoolArray) -> NDArray[np.float64]:
    """Return the median magnitude of each feature over rows that exist, `[features]`; 1e-30 where all are zero."""
    scales = np.full(features.shape[-1], 1e-30)
    for column in range(features.shape[-1]):
        values = np.abs(features[..., column][exists])
        values = values[np.isfinite(values)]
        if values.size:
            scales[column] = max(float(np.median(values)), 1e-30)
    return scales


def _same(left: NDArray[np.float64], right: NDArray[np.float64]) -> BoolArray:
    same: BoolArray = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _gap(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance; 0 where both are NaN or the same infinity, infinite where one alone is finite."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(left - right)
    return np.where(_same(left, right), 0.0, np.where(np.isnan(gap), np.inf, gap))
