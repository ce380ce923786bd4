"""Qlib's data providers over T1 snapshots: calendar, instruments and features without a binary dump.

Owns: how a snapshot looks to Qlib 0.9.7; the only file that subclasses Qlib.
Must not know: feature sets, models, the worker. Research only: nothing that serves imports this file.
Invariant: the same series, types and gaps that Qlib reads from its own dump of these bars: float32 values by position
on the calendar, from a symbol's first bar to its last, NaN where a session has none.
"""

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from qlib.data.data import CalendarProvider, FeatureProvider, LocalInstrumentProvider
from qlib.utils.time import Freq

from strategies.market.bars import SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import SnapshotRef, find_snapshot, open_snapshot, read_symbol
from strategies.market.symbol_bars import SymbolBars
from strategies.market.symbols import folded

#: Symbols whose bars stay in memory; Qlib asks for all fields of one symbol before it goes on to the next.
CACHED_SYMBOLS = 64


class T1CalendarProvider(CalendarProvider):  # type: ignore[misc]  # Qlib has no types
    """Sessions from the snapshot's first bar to its last; with `future`, on to the end of the exchange calendar.

    Args:
        data_dir: `adjusted/<run date>/` lies below it.
        snapshot: Id of the snapshot.
    """

    def __init__(self, data_dir: str, snapshot: str) -> None:
        super().__init__()
        self._data_dir, self._snapshot = data_dir, snapshot

    def load_calendar(self, freq: str, future: bool) -> list[pd.Timestamp]:  # noqa: FBT001 - Qlib's signature
        """Return the sessions as Qlib wants them.

        Raises:
            ValueError: The frequency is not daily.
        """
        _refuse_other_frequency(freq)
        snapshot = _open(self._data_dir, self._snapshot)
        sessions = _future_sessions(snapshot) if future else _sessions(snapshot)
        # From text, as Qlib makes them: pandas gives a timestamp the resolution of what it was made from.
        return [pd.Timestamp(str(session)) for session in sessions]


class T1InstrumentProvider(LocalInstrumentProvider):  # type: ignore[misc]  # Qlib has no types
    """Every symbol of the snapshot from its first bar to its last, as the market `all`.

    Args:
        data_dir: `adjusted/<run date>/` lies below it.
        snapshot: Id of the snapshot.
    """

    def __init__(self, data_dir: str, snapshot: str) -> None:
        super().__init__()
        self._data_dir, self._snapshot = data_dir, snapshot

    def _load_instruments(self, market: str, freq: str) -> dict[str, list[tuple[pd.Timestamp, pd.Timestamp]]]:
        _refuse_other_frequency(freq)
        if market != "all":
            # Qlib's own storage refuses an absent market file with the same class.
            raise ValueError(f"market was {market!r}, a snapshot has only 'all'")
        files = _open(self._data_dir, self._snapshot).manifest.files
        return {symbol: [(pd.Timestamp(file.first), pd.Timestamp(file.last))] for symbol, file in files.items()}


class T1FeatureProvider(FeatureProvider):  # type: ignore[misc]  # Qlib has no types
    """Columns of a symbol's bars: `$open`, `$high`, `$low`, `$close`, `$volume`, `$factor`, and `$vwap` where known.

    An unknown symbol or field gives an empty series, which becomes a column of NaN: what Qlib does with a file that
    its dump lacks.

    Args:
        data_dir: `adjusted/<run date>/` lies below it.
        snapshot: Id of the snapshot.
    """

    def __init__(self, data_dir: str, snapshot: str) -> None:
        super().__init__()
        self._data_dir, self._snapshot = data_dir, snapshot

    def feature(
        self, instrument: str, field: str, start_index: int | None, end_index: int, freq: str
    ) -> "pd.Series[float]":
        """Return one field of one symbol between two positions on the calendar, both included.

        Raises:
            ValueError: The frequency is not daily.
        """
        _refuse_other_frequency(freq)
        series = _series(self._data_dir, self._snapshot, folded(str(instrument)))
        values = series.fields.get(str(field)[1:].lower())
        start = max(start_index or 0, series.start)
        if values is None or start > end_index:
            return pd.Series(dtype=np.float32)
        part = values[start - series.start : end_index - series.start + 1]
        return pd.Series(part, index=pd.RangeIndex(start, start + len(part)))


class _Series:
    """One symbol's fields from its first bar on, as Qlib's dump would hold them."""

    def __init__(self, bars: SymbolBars | None, sessions: SessionArray) -> None:
        self.start = 0
        self.fields: Mapping[str, NDArray[np.float32]] = {}
        if bars is not None:
            at = np.searchsorted(sessions, bars.sessions)
            self.start = int(at[0])
            length = int(at[-1]) - self.start + 1
            self.fields = {name: _dense(values, at - self.start, length) for name, values in bars.columns.items()}


def _dense(values: NDArray[np.float64], at: NDArray[np.intp], length: int) -> NDArray[np.float32]:
    dense = np.full(length, np.nan, np.float32)
    # Beyond float32 a value becomes infinite, in Qlib's dump as here.
    with np.errstate(over="ignore", under="ignore"):
        dense[at] = values.astype(np.float32)
    return dense


def _refuse_other_frequency(freq: str) -> None:
    if Freq(freq) != Freq("day"):
        raise ValueError(f"freq was {freq!r}, snapshots hold daily bars")


# A snapshot never changes, so what is read of it stays true; the id in the key tells two snapshots apart.
@lru_cache(maxsize=8)
def _open(data_dir: str, snapshot: str) -> SnapshotRef:
    return find_snapshot(Path(data_dir), snapshot)


@lru_cache(maxsize=CACHED_SYMBOLS)
def _series(data_dir: str, snapshot: str, symbol: str) -> _Series:
    found = _open(data_dir, snapshot)
    bars = read_symbol(found, symbol) if symbol in found.manifest.files else None
    return _Series(bars, _sessions(found))


def _sessions(snapshot: SnapshotRef) -> SessionArray:
    manifest = snapshot.manifest
    return _calendar(snapshot.path).sessions_between(manifest.first, manifest.last)


def _future_sessions(snapshot: SnapshotRef) -> SessionArray:
    calendar, first = _calendar(snapshot.path), snapshot.first_session
    last: date = calendar.sessions[-1].astype(object)
    return calendar.sessions_between(first, last)


@lru_cache(maxsize=8)
def _calendar(folder: Path) -> SessionCalendar:
    return open_snapshot(folder).open_calendar()
