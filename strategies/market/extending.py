"""Extending: a panel with the bars that were appended to its snapshot, without reading the rest again.

Owns: the room that a panel keeps for sessions to come, and the columns that an append fills.
Must not know: which snapshot serves, how bars are judged.
Invariant: an extended panel equals the one that a full load of its snapshot gives, bit for bit; the panel before is
not changed, since no request that reads it looks beyond its last session.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from strategies.errors import DataError
from strategies.market.bars import BoolArray, FloatArray, IntArray, Panel, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import Part
from strategies.market.parts import ManyBars, read_part
from strategies.market.snapshots import SnapshotRef, read_symbol, unsettled_marks

#: Sessions that are made room for at once.
SPARE = 64


def extended(panel: Panel, base: SnapshotRef, snapshot: SnapshotRef, calendar: SessionCalendar) -> Panel:
    """Return the panel of a snapshot that was appended to the one that a panel holds.

    Args:
        panel: All bars of `base`.
        base: The snapshot that the panel holds.
        snapshot: What was made from it by appending, in one step or several.
        calendar: The calendar of both.

    Raises:
        DataError: The snapshot was not appended to that one, or a part is not what its manifest states.
    """
    parts = _new_parts(base, snapshot)
    manifest = snapshot.manifest
    symbols = tuple(sorted(manifest.files))
    sessions = calendar.sessions_between(manifest.first, manifest.last)
    if manifest.first != base.manifest.first or not set(panel.symbols) <= set(symbols):
        raise DataError(f"{snapshot.path}: does not begin as {base.path.name} does, so that it must be read anew")
    room = _Room(panel, symbols, sessions, vwap=manifest.has_vwap)
    added = [read_part(snapshot.path, part) for part in parts]
    for bars in added:
        room.put(bars)
    for symbol in _restated(snapshot, base, symbols):
        room.put_whole(symbol, read_symbol(snapshot, symbol).sessions, read_symbol(snapshot, symbol).columns)
    return room.panel(snapshot)


def _new_parts(base: SnapshotRef, snapshot: SnapshotRef) -> Sequence[Part]:
    before, after = base.manifest.parts, snapshot.manifest.parts
    if len(after) <= len(before) or after[: len(before)] != before:
        raise DataError(f"{snapshot.path}: was not appended to {base.path.name}")
    return after[len(before) :]


def _restated(snapshot: SnapshotRef, base: SnapshotRef, symbols: Sequence[str]) -> list[str]:
    """Return the symbols whose own file was written anew since the base."""
    before, after = base.manifest.files, snapshot.manifest.files
    return [
        symbol for symbol in symbols if symbol in before and before[symbol].file_sha256 != after[symbol].file_sha256
    ]


class _Room:
    """Arrays with room for more sessions; the panel before looks at the same memory, up to its own last session."""

    def __init__(self, panel: Panel, symbols: tuple[str, ...], sessions: SessionArray, *, vwap: bool) -> None:
        self._before, self._symbols, self._sessions = panel, symbols, sessions
        self._index = {symbol: row for row, symbol in enumerate(symbols)}
        count, width = len(panel.sessions), len(sessions)
        names = [*panel.fields, *(["vwap"] if vwap and "vwap" not in panel.fields else [])]
        same = symbols == panel.symbols and set(names) == set(panel.fields)
        spare = panel.spare if same and all(one.shape[1] >= width for one in panel.spare.values()) else {}
        self._taken = not spare
        self._arrays: Mapping[str, FloatArray] = spare or self._made(names, count, width)
        for array in self._arrays.values():
            array[:, count:width] = np.nan
        rows = np.array([self._index[symbol] for symbol in panel.symbols], dtype=np.int64)
        self._first: IntArray = np.full(len(symbols), width, dtype=np.int64)
        self._last: IntArray = np.full(len(symbols), -1, dtype=np.int64)
        self._first[rows], self._last[rows] = panel.first, panel.last
        self._halted: list[tuple[IntArray, IntArray]] = []
        halted = panel.marks.get("halted")
        if halted is not None:
            at = np.nonzero(halted)
            self._halted.append((rows[at[0]], at[1]))

    def _made(self, names: Sequence[str], count: int, width: int) -> dict[str, FloatArray]:
        rows = np.array([self._index[symbol] for symbol in self._before.symbols], dtype=np.int64)
        made = {}
        for name in names:
            array = np.empty((len(self._symbols), width + SPARE))
            if len(rows) != len(self._symbols) or name not in self._before.fields:
                array[:] = np.nan
            if name in self._before.fields:
                array[rows, :count] = self._before.fields[name]
            made[name] = array
        return made

    def put(self, bars: ManyBars) -> None:
        """Fill the bars of a part."""
        lengths = np.diff(bars.bounds)
        rows = np.repeat(np.array([self._index[symbol] for symbol in bars.symbols], dtype=np.int64), lengths)
        at = np.searchsorted(self._sessions, bars.sessions)
        self._refuse_strangers(bars.sessions, at)
        if (at < len(self._before.sessions)).any():
            self._take()  # a late bar of a session that requests read now
        for name, array in self._arrays.items():
            if name in bars.columns:
                array[rows, at] = bars.columns[name]
        np.minimum.at(self._first, rows, at)
        np.maximum.at(self._last, rows, at)
        if "halted" in bars.columns:
            chosen = bars.columns["halted"] > 0
            self._halted.append((rows[chosen], at[chosen]))

    def put_whole(self, symbol: str, sessions: SessionArray, columns: Mapping[str, FloatArray]) -> None:
        """Replace all bars of a symbol, in arrays of its own: requests still read the ones before."""
        self._take()
        row, at = self._index[symbol], np.searchsorted(self._sessions, sessions)
        self._refuse_strangers(sessions, at)
        for name, array in self._arrays.items():
            array[row] = np.nan
            if name in columns:
                array[row, at] = columns[name]
        self._first[row], self._last[row] = at[0], at[-1]

    def panel(self, snapshot: SnapshotRef) -> Panel:
        """Return the panel of everything that was put."""
        width = len(self._sessions)
        fields = {name: array[:, :width] for name, array in self._arrays.items()}
        for values in (*fields.values(), self._first, self._last):
            values.setflags(write=False)
        return Panel(
            symbols=self._symbols,
            sessions=self._sessions,
            fields=MappingProxyType(fields),
            first=self._first,
            last=self._last,
            snapshot_id=snapshot.id,
            marks=MappingProxyType(self._marks(snapshot)),
            spare=MappingProxyType(dict(self._arrays)),
        )

    def _marks(self, snapshot: SnapshotRef) -> dict[str, BoolArray]:
        unsettled = unsettled_marks(snapshot.manifest, self._symbols, self._sessions)
        marks = {} if unsettled is None else {"unsettled": unsettled}
        if any(len(rows) for rows, _ in self._halted):
            marks["halted"] = np.zeros((len(self._symbols), len(self._sessions)), bool)
            for rows, at in self._halted:
                marks["halted"][rows, at] = True
        for marked in marks.values():
            marked.setflags(write=False)
        return marks

    def _take(self) -> None:
        """Leave the memory that requests read."""
        if not self._taken:
            self._arrays = {name: array.copy() for name, array in self._arrays.items()}
            self._taken = True

    def _refuse_strangers(self, sessions: SessionArray, at: IntArray) -> None:
        if (at >= len(self._sessions)).any() or (self._sessions[at] != sessions).any():
            raise DataError(f"{sessions[0]} to {sessions[-1]}: not all of them are sessions of the calendar")
