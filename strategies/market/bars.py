"""Panels and windows of bars: the arrays that every feature is computed from.

Owns: `Panel` (all symbols of a snapshot on the exchange calendar) and `Window` (the slice that one request may see).
Must not know: files, Parquet, clocks, models.
Invariant: arrays are read-only float64 `[symbols, sessions]`, those of a window C-contiguous; a missing session is
NaN; nothing after the as-of session is ever inside a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from strategies.errors import AsOfBeforeData, StaleSnapshot, UnknownSymbols

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
#: What models read: Qlib casts its features so.
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
#: Session labels, dtype `datetime64[D]`, strictly increasing.
SessionArray = NDArray[np.datetime64]

#: Fields every bar has; `vwap` and `factor` stand beside them where the snapshot knows them.
FIELDS = ("open", "high", "low", "close", "volume")
#: Share of the bars that must know their vwap for features to use it unless something else is asked for.
VWAP_SHARE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The bars one evaluation may see: the last `lookback` sessions up to and including the as-of session."""

    #: In the order that was asked for, `[symbols]`.
    symbols: tuple[str, ...]
    #: The last one is the as-of session, `[sessions]`; shorter than the lookback at the start of the panel.
    sessions: SessionArray
    #: Field name to values `[symbols, sessions]`, adjusted prices in the quote currency, shares; NaN = no bar.
    fields: Mapping[str, FloatArray]
    #: Index of each symbol's first existing row in this window, `[symbols]`; 0 = listed before the window starts.
    #: Rows before it do not exist (they are not missing bars); windows of expressions start here, as in Qlib.
    first: IntArray
    #: Name to sessions that are marked, `[symbols, sessions]`: `halted` (the vendor says so), `unsettled` (a price
    #: level began that looks like a split); absent: no session is.
    marks: Mapping[str, BoolArray] = field(default_factory=dict)

    @property
    def as_of(self) -> date:
        """Return the last session of the window."""
        as_of: date = self.sessions[-1].astype(object)
        return as_of

    def take(self, rows: IntArray) -> "Window":
        """Return the window of these rows, in this order."""
        return Window(
            symbols=tuple(self.symbols[row] for row in rows),
            sessions=self.sessions,
            fields=MappingProxyType({name: _frozen(values[rows]) for name, values in self.fields.items()}),
            first=self.first[rows],
            marks={name: marked[rows] for name, marked in self.marks.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The bars of one snapshot, all symbols aligned on the sessions of the exchange calendar."""

    #: Ascending, unique, `[symbols]`.
    symbols: tuple[str, ...]
    #: Every exchange session from the snapshot's first bar to its last, `[sessions]`.
    sessions: SessionArray
    #: Field name to values `[symbols, sessions]`; always the five of `FIELDS`; `vwap` and `factor` where known.
    fields: Mapping[str, FloatArray]
    #: Index of each symbol's first bar in `sessions`, `[symbols]`.
    first: IntArray
    #: Index of each symbol's last bar in `sessions`, `[symbols]`.
    last: IntArray
    #: Content hash of the snapshot.
    snapshot_id: str
    #: As those of a window, `[symbols, sessions]`.
    marks: Mapping[str, BoolArray] = field(default_factory=dict)
    #: Arrays that the fields are views of, with room for sessions to come; empty: there is none. A session that is
    #: appended is written there, where no window of this panel looks.
    spare: Mapping[str, FloatArray] = field(default_factory=dict, repr=False, compare=False)
    #: Symbol to row; made from `symbols`.
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = MappingProxyType({symbol: row for row, symbol in enumerate(self.symbols)})
        object.__setattr__(self, "index", index)

    @property
    def has_vwap(self) -> bool:
        """Return whether the bars carry a vwap: all but a hundredth of them."""
        if "vwap" not in self.fields:
            return False
        present = ~np.isnan(self.fields["close"])
        known = present & ~np.isnan(self.fields["vwap"])
        return bool(known.sum() >= VWAP_SHARE * present.sum())

    def rows(self, symbols: Sequence[str]) -> IntArray:
        """Return the row of each symbol.

        Raises:
            UnknownSymbols: At least one symbol has no bars in this panel.
        """
        index = self.index
        unknown = tuple(symbol for symbol in symbols if symbol not in index)
        if unknown:
            raise UnknownSymbols(unknown, index)
        return np.fromiter((index[symbol] for symbol in symbols), dtype=np.int64, count=len(symbols))

    def column(self, as_of: date) -> int:
        """Return the index of the as-of session.

        Raises:
            AsOfBeforeData: The session lies before the first one.
            StaleSnapshot: The session lies after the last one.
        """
        day = np.datetime64(as_of, "D")
        if day < self.sessions[0]:
            raise AsOfBeforeData(as_of, self.sessions[0].astype(object))
        if day > self.sessions[-1]:
            raise StaleSnapshot(as_of, self.sessions[-1].astype(object))
        return int(np.searchsorted(self.sessions, day, side="right")) - 1

    def window(self, symbols: Sequence[str], as_of: date, lookback: int) -> Window:
        """Return the last `lookback` sessions up to the as-of session, for these symbols in this order.

        Raises:
            UnknownSymbols: At least one symbol has no bars in this panel.
            AsOfBeforeData: The session lies before the first one.
            StaleSnapshot: The session lies after the last one.
        """
        rows, stop = self.rows(symbols), self.column(as_of) + 1
        start = max(0, stop - lookback)
        fields = {name: _frozen(values[rows, start:stop]) for name, values in self.fields.items()}
        return Window(
            symbols=tuple(symbols),
            sessions=self.sessions[start:stop],
            fields=MappingProxyType(fields),
            first=np.clip(self.first[rows] - start, 0, stop - start),
            marks={name: marked[rows, start:stop] for name, marked in self.marks.items()},
        )


def _frozen(values: FloatArray) -> FloatArray:
    copy = np.ascontiguousarray(values)
    copy.setflags(write=False)
    return copy
