"""Qlib's own features of a snapshot, laid out as the engine lays out its own.

Owns: asking `D.features` and aligning the answer on a panel.
Must not know: the engine, models.
Invariant: values are what Qlib's provider hands out, untouched; rows that Qlib does not have are NaN and masked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from strategies.market.bars import BoolArray, Float32Array, Panel

#: Told how many symbols of how many are done.
Progress = Callable[[int, int], None]

#: Symbols a query: bounds the frame that Qlib builds.
QUERY_SYMBOLS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleBlock:
    """Qlib's features of some symbols over all sessions of the panel."""

    #: Rows of the panel, `[symbols]`.
    rows: slice
    #: `[sessions, symbols, features]`.
    features: Float32Array
    #: Whether Qlib has a row there (first bar to last bar), `[sessions, symbols]`.
    exists: BoolArray


def oracle_blocks(
    panel: Panel, expressions: Sequence[str], *, progress: Progress | None = None
) -> Iterator[OracleBlock]:
    """Yield Qlib's features of the whole panel, a block of symbols at a time.

    `T1DataProvider.init_qlib` must have been called on the panel's snapshot.
    """
    days = pd.DatetimeIndex(panel.sessions.astype("datetime64[ns]"))
    total = len(panel.symbols)
    for start in range(0, total, QUERY_SYMBOLS):
        rows = slice(start, min(start + QUERY_SYMBOLS, total))
        yield _block(panel.symbols[rows], days, expressions, rows)
        if progress:
            progress(rows.stop, total)


def query(symbols: Sequence[str], expressions: Sequence[str], start: object = None, end: object = None) -> pd.DataFrame:
    """Return what `D.features` answers, indexed (instrument, datetime)."""
    from qlib.data import D  # noqa: PLC0415 - slow, and only research has it

    frame: pd.DataFrame = D.features(list(symbols), list(expressions), start_time=start, end_time=end)
    return frame


def _block(symbols: Sequence[str], days: pd.DatetimeIndex, expressions: Sequence[str], rows: slice) -> OracleBlock:
    frame = query(symbols, expressions)
    features = np.full((len(days), len(symbols), len(expressions)), np.nan, np.float32)
    exists = np.zeros((len(days), len(symbols)), bool)
    for column, symbol in enumerate(symbols):
        own = frame.loc[symbol]
        at = days.get_indexer(own.index)
        features[at, column] = own.to_numpy(np.float32)
        exists[at, column] = True
    return OracleBlock(rows=rows, features=features, exists=exists)
