"""The golden sample: rows that training saw, with all that is needed to compute them again.

Owns: which rows are kept, and the bit-for-bit comparison that a bundle must pass before it serves.
Must not know: Parquet, files, registries.
Invariant: a row contains the very window its features were computed from, so a replay needs no snapshot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from strategies.errors import GoldenSampleMismatch, MalformedModel
from strategies.expressions.feature_sets import FeatureSet
from strategies.market.bars import Float32Array, FloatArray, IntArray, Panel, Window
from strategies.models.bundle import Predictor

#: Symbol and session.
Cell = tuple[str, date]
#: Fewest rows of a sample.
MIN_ROWS = 64
#: Most cells that one feature adds: its lowest, its highest and one NaN.
CELLS_A_FEATURE = 3
#: Rows of each short history, and of the last session.
ROWS_A_HISTORY, LAST_ROWS = 2, 4
#: Most bytes of bars and features: well below the 64 MiB that are read of the file, which may be larger than they are.
MAX_BYTES = 40 * 1024**2
#: Bars of history at which windows of Alpha158 start to be defined, or become full.
SHORT_HISTORIES = (1, 2, 3, 5, 10, 20, 30, 59, 60, 61)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSample:
    """Rows with their bars, features and predictions."""

    #: One symbol each, `[rows]`.
    windows: tuple[Window, ...]
    #: As training computed them, `[rows, features]`.
    features: Float32Array
    #: The model's own output, `[rows]`.
    predictions: FloatArray


def most_rows(columns: int, bars: int) -> int:
    """Return the most rows of a sample: enough for every feature's range, if they fit into the file.

    Args:
        columns: Features of a row.
        bars: Values in the window of a row.
    """
    wanted = CELLS_A_FEATURE * columns + ROWS_A_HISTORY * len(SHORT_HISTORIES) + LAST_ROWS
    return max(MIN_ROWS, min(wanted, MAX_BYTES // (4 * columns + 8 * bars)))


def choose_rows(features: Float32Array, listed: IntArray, *, seed: int, most: int) -> IntArray:
    """Return the cells to keep as golden rows, `[rows, 2]`: session index, symbol index.

    Wanted are, for each feature, its lowest and highest finite cell and one NaN cell; rows with short histories; the
    last session; seeded random rows up to `MIN_ROWS`. Where these are too many, extremes are left out first, those of
    the last features before the others.

    Args:
        features: `[sessions, symbols, features]`.
        listed: Sessions since each symbol's first bar, that one included, `[sessions, symbols]`; below 1 = no row.
        seed: Of the random rows.
        most: Rows that are kept at most, see `most_rows`.
    """
    exists = listed >= 1
    hard = [*_short(listed), *_last(exists)]
    extremes, missing = _extremes(features, exists)
    kept = set(list(dict.fromkeys([*hard, *missing, *extremes]))[:most])
    chosen = [cell for cell in dict.fromkeys([*extremes, *hard]) if cell in kept]
    if len(chosen) < MIN_ROWS:
        random = np.random.default_rng(seed).permutation(np.flatnonzero(exists))
        chosen += [cell for cell in random.tolist() if cell not in kept][: MIN_ROWS - len(chosen)]
    return np.stack(np.divmod(np.array(chosen, dtype=np.int64), features.shape[1]), axis=1)


def take_golden(predictor: Predictor, panel: Panel, cells: Sequence[Cell], features: Float32Array) -> GoldenSample:
    """Return the golden sample of these cells.

    Args:
        predictor: Feature set and model.
        panel: The bars that training read.
        cells: Symbol and session of each row, `[rows]`.
        features: As training computed them, `[rows, features]`.

    Raises:
        MalformedModel: A prediction is not finite.
    """
    windows = tuple(_window(predictor.feature_set, panel, symbol, session) for symbol, session in cells)
    predictions = predictor.predict(features)
    _check_finite(windows, predictions)
    return GoldenSample(windows=windows, features=features, predictions=predictions)


def replay_golden(predictor: Predictor, golden: GoldenSample) -> None:
    """Compute features and predictions of the golden sample again and compare them bit for bit.

    Raises:
        GoldenSampleMismatch: A feature or prediction differs; names it, the symbol, the session, both values.
        MalformedModel: A prediction is not finite.
    """
    names = predictor.feature_set.names
    if golden.features.shape != (len(golden.windows), len(names)):
        raise GoldenSampleMismatch(f"golden features have shape {golden.features.shape}, columns are {len(names)}")
    if len(golden.windows) < MIN_ROWS:
        raise GoldenSampleMismatch(
            f"the golden sample has {len(golden.windows)} rows, it must have at least {MIN_ROWS}"
        )
    for window, expected in zip(golden.windows, golden.features, strict=True):
        was = predictor.feature_set.evaluate(window)[0]
        for column in np.flatnonzero(~_same_bits(expected, was))[:1]:
            raise GoldenSampleMismatch(_difference(names[column], window, expected[column], was[column]))
    # From the stored features, so that one call prices all rows; they have just been shown to be the same bits.
    predictions = predictor.predict(golden.features)
    _check_finite(golden.windows, predictions)
    for row in np.flatnonzero(~_same_bits(golden.predictions, predictions))[:1]:
        window = golden.windows[row]
        raise GoldenSampleMismatch(_difference("prediction", window, golden.predictions[row], predictions[row]))


def _extremes(features: Float32Array, exists: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Return every feature's lowest, highest and first NaN cell, and the NaN cells alone."""
    cells: list[int] = []
    missing: list[int] = []
    for column in range(features.shape[2]):
        values = features[:, :, column].astype(np.float64)
        finite = exists & np.isfinite(values)
        if finite.any():
            cells.append(int(np.argmin(np.where(finite, values, np.inf))))
            cells.append(int(np.argmax(np.where(finite, values, -np.inf))))
        without_value = [int(cell) for cell in np.flatnonzero(exists & ~np.isfinite(values))[:1]]
        cells += without_value
        missing += without_value
    return cells, missing


def _short(listed: IntArray) -> list[int]:
    """Cells with each short history: of the youngest symbols, or of the panel's own first sessions."""
    return [int(cell) for bars in SHORT_HISTORIES for cell in np.flatnonzero(listed == bars)[-ROWS_A_HISTORY:]]


def _last(exists: NDArray[np.bool_]) -> list[int]:
    return [(len(exists) - 1) * exists.shape[1] + int(symbol) for symbol in np.flatnonzero(exists[-1])[:LAST_ROWS]]


def _window(features: FeatureSet, panel: Panel, symbol: str, session: date) -> Window:
    window = panel.window([symbol], session, features.lookback)
    fields = {name: values for name, values in window.fields.items() if name in features.fields}
    return replace(window, fields=MappingProxyType(fields))


def _same_bits(expected: NDArray[np.floating], was: NDArray[np.floating]) -> NDArray[np.bool_]:
    bits = np.uint32 if expected.dtype == np.float32 else np.uint64
    if expected.dtype != was.dtype:
        raise GoldenSampleMismatch(f"values are {was.dtype}, the golden sample holds {expected.dtype}")
    both_missing = np.isnan(expected) & np.isnan(was)
    same: NDArray[np.bool_] = (expected.view(bits) == was.view(bits)) | both_missing
    return same


def _difference(name: str, window: Window, expected: np.floating, was: np.floating) -> str:
    return f"{name} of {window.symbols[0]} on {window.as_of}: expected {expected!s}, was {was!s}"


def _check_finite(windows: tuple[Window, ...], predictions: FloatArray) -> None:
    for row in np.flatnonzero(~np.isfinite(predictions))[:1]:
        window = windows[row]
        raise MalformedModel(f"prediction of {window.symbols[0]} on {window.as_of} is {predictions[row]}, not finite")
