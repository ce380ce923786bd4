"""The golden sample: rows that training saw, with all that is needed to compute them again.

Owns: which rows are kept, and the bit-for-bit comparison that a bundle must pass before it serves.
Must not know: Parquet, files, registries.
Invariant: a row holds the very window its features were computed from, so a replay needs no snapshot.
"""

from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from strategies.errors import GoldenSampleMismatch, MalformedModel
from strategies.market.bars import FloatArray, IntArray, Panel, Window
from strategies.models.bundle import Bundle
from strategies.models.processors import Float32Array

#: Fewest rows of a sample where the snapshot has that many.
MIN_ROWS = 64
#: Most rows: each feature's lowest and highest, and the rows that are hard to compute, stay below it.
MAX_ROWS = 512
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


def choose_rows(panel: Panel, features: Float32Array, *, offset: int, lookback: int, seed: int) -> IntArray:
    """Return the cells to keep as golden rows, `[rows, 2]`: session index in the panel, symbol index.

    Chosen, in this order, until `MAX_ROWS`: for each feature its lowest and highest finite cell and one NaN cell;
    rows with short histories; the last session; seeded random rows up to `MIN_ROWS`.

    Args:
        panel: The panel that the features were computed from.
        features: `[sessions, symbols, features]`, sessions from `offset` on.
        offset: Index in the panel of the first session of `features`.
        lookback: Sessions a full window has.
        seed: Of the random rows.
    """
    exists = np.arange(offset, offset + len(features))[:, None] >= panel.first[None, :]
    chosen = [*_extremes(features, exists), *_short(panel, exists, offset), *_last(exists)]
    cells = np.flatnonzero(exists)
    extra = np.random.default_rng(seed).permutation(cells)[: MIN_ROWS + lookback]
    unique = list(dict.fromkeys(chosen))[:MAX_ROWS]
    for cell in extra:
        if len(unique) >= MIN_ROWS:
            break
        if int(cell) not in unique:
            unique.append(int(cell))
    rows = np.array([divmod(cell, features.shape[1]) for cell in unique], dtype=np.int64).reshape(-1, 2)
    rows[:, 0] += offset
    return rows


def take_golden(bundle: Bundle, panel: Panel, rows: IntArray) -> GoldenSample:
    """Return the golden sample of these cells, computed window by window as serving does.

    Raises:
        MalformedModel: A prediction is not finite.
    """
    windows = tuple(_window(bundle, panel, int(session), int(symbol)) for session, symbol in rows)
    features = np.concatenate([bundle.feature_set.evaluate(window) for window in windows])
    predictions = bundle.predict(features)
    _check_finite(windows, predictions)
    return GoldenSample(windows=windows, features=features, predictions=predictions)


def replay_golden(bundle: Bundle, golden: GoldenSample) -> None:
    """Compute features and predictions of the golden sample again and compare them bit for bit.

    Raises:
        GoldenSampleMismatch: A feature or prediction differs; names it, the symbol, the session, both values.
        MalformedModel: A prediction is not finite.
    """
    names = bundle.feature_set.names
    if golden.features.shape != (len(golden.windows), len(names)):
        raise GoldenSampleMismatch(f"golden features have shape {golden.features.shape}, columns are {len(names)}")
    for window, expected in zip(golden.windows, golden.features, strict=True):
        was = bundle.feature_set.evaluate(window)[0]
        for column in np.flatnonzero(~_same_bits(expected, was))[:1]:
            raise GoldenSampleMismatch(_difference(names[column], window, expected[column], was[column]))
    # From the stored features, so that one call prices all rows; they have just been shown to be the same bits.
    predictions = bundle.predict(golden.features)
    _check_finite(golden.windows, predictions)
    for row in np.flatnonzero(~_same_bits(golden.predictions, predictions))[:1]:
        window = golden.windows[row]
        raise GoldenSampleMismatch(_difference("prediction", window, golden.predictions[row], predictions[row]))


def _extremes(features: Float32Array, exists: NDArray[np.bool_]) -> list[int]:
    cells: list[int] = []
    for column in range(features.shape[2]):
        values = features[:, :, column].astype(np.float64)
        finite = exists & np.isfinite(values)
        if finite.any():
            cells.append(int(np.argmin(np.where(finite, values, np.inf))))
            cells.append(int(np.argmax(np.where(finite, values, -np.inf))))
        cells.extend(int(cell) for cell in np.flatnonzero(exists & ~np.isfinite(values))[:1])
    return cells


def _short(panel: Panel, exists: NDArray[np.bool_], offset: int) -> list[int]:
    """Cells with each short history, of the youngest symbols; a panel's own first sessions count as well."""
    sessions = np.arange(offset, offset + len(exists))[:, None]
    history = sessions - panel.first[None, :] + 1
    return [int(cell) for bars in SHORT_HISTORIES for cell in np.flatnonzero(exists & (history == bars))[-2:]]


def _last(exists: NDArray[np.bool_]) -> list[int]:
    symbols = np.flatnonzero(exists[-1])[:4]
    return [int((len(exists) - 1) * exists.shape[1] + symbol) for symbol in symbols]


def _window(bundle: Bundle, panel: Panel, session: int, symbol: int) -> Window:
    as_of: date = panel.sessions[session].astype(object)
    window = panel.window([panel.symbols[symbol]], as_of, bundle.lookback)
    fields = {name: values for name, values in window.fields.items() if name in bundle.feature_set.fields}
    return Window(symbols=window.symbols, sessions=window.sessions, fields=MappingProxyType(fields), first=window.first)


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
