"""Snapshots: complete T1 imports on disk, and the panels made of them.

Owns: finding snapshots, reading their Parquet files, aligning bars on the exchange calendar.
Must not know: how rows were judged, features, requests.
Invariant: a folder without a manifest does not exist; a panel holds exactly the bars whose hashes the manifest states.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.errors import CalendarRange, DataError, SnapshotNotFound, UnknownSymbols
from strategies.market.bars import FIELDS, FloatArray, IntArray, Panel, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import COLUMNS, NAME, Manifest, SymbolFile, content_sha256, read_manifest

#: Fields a panel may hold beside the five.
OPTIONAL_FIELDS = ("vwap", "factor")
#: Threads that read files; decoding runs outside the interpreter's lock.
READERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRef:
    """One complete snapshot on disk."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """Return the content hash that names the snapshot."""
        return self.manifest.snapshot_id

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols, ascending."""
        return tuple(self.manifest.files)

    @property
    def calendar(self) -> str:
        """Return the code of the exchange calendar the bars stand on."""
        return self.manifest.calendar

    @property
    def first_session(self) -> date:
        """Return the first session that any symbol has a bar of."""
        return self.manifest.first

    @property
    def last_session(self) -> date:
        """Return the last session that any symbol has a bar of."""
        return self.manifest.last

    @property
    def date(self) -> date:
        """Return the day of the import."""
        return self.manifest.run_date


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolBars:
    """One symbol's bars."""

    symbol: str
    #: Ascending, `[bars]`.
    sessions: SessionArray
    #: Column to adjusted values `[bars]`; always the five of `FIELDS` and `factor`; vwap where known.
    columns: dict[str, FloatArray]


def adjusted_dir(data_dir: Path) -> Path:
    """Return the folder below which snapshots lie, one a run date."""
    return data_dir / "adjusted"


def list_snapshots(data_dir: Path) -> tuple[SnapshotRef, ...]:
    """Return every complete snapshot, oldest run date first.

    Raises:
        DataError: A manifest is unreadable.
    """
    return tuple(_open(folder) for folder in _complete_folders(data_dir))


def latest_snapshot(data_dir: Path) -> SnapshotRef:
    """Return the complete snapshot of the latest run date.

    Raises:
        SnapshotNotFound: There is none.
        DataError: Its manifest is unreadable; an older snapshot never stands in for it.
    """
    folders = _complete_folders(data_dir)
    if not folders:
        raise SnapshotNotFound(f"no complete snapshot below {adjusted_dir(data_dir)}")
    return _open(folders[-1])


def find_snapshot(data_dir: Path, name: str) -> SnapshotRef:
    """Return the latest snapshot of that id, of an id that starts so (8 digits or more), or of that run date.

    Raises:
        SnapshotNotFound: There is none, or the first digits fit several ids.
        DataError: A manifest is unreadable.
    """
    snapshots = list_snapshots(data_dir)
    if re.fullmatch(r"[0-9a-f]{8,64}", name):
        found = [snapshot for snapshot in snapshots if snapshot.id.startswith(name)]
    else:
        found = [snapshot for snapshot in snapshots if snapshot.path.name == name]
    if len({snapshot.id for snapshot in found}) != 1:
        count = f"{len(found)} fit" if found else "none fits"
        raise SnapshotNotFound(f"snapshot {name[:80]!r}: {count} of {len(snapshots)} below {adjusted_dir(data_dir)}")
    return found[-1]


def read_symbol(snapshot: SnapshotRef, symbol: str, *, verify: bool = True) -> SymbolBars:
    """Return one symbol's bars.

    Args:
        snapshot: Where to read.
        symbol: As the snapshot spells it.
        verify: Compare the file's bytes and the bars' values with the hashes in the manifest.

    Raises:
        UnknownSymbols: The snapshot has no such symbol.
        DataError: The file is absent, truncated, or not what the manifest states.
    """
    if symbol not in snapshot.manifest.files:
        raise UnknownSymbols((symbol,), snapshot.manifest.files)
    path, stated = snapshot.path / f"{symbol}.parquet", snapshot.manifest.files[symbol]
    try:
        content = path.read_bytes()
        if verify and hashlib.sha256(content).hexdigest() != stated.file_sha256:
            raise DataError(f"{path}: its bytes are not those the manifest states ({len(content)} bytes)")
        table = parquet.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        bars = _bars(symbol, table)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {(str(error).splitlines() or ['?'])[0][:200]}") from error
    _refuse_other_bars(bars, stated, path, verify=verify)
    return bars


def load_panel(
    snapshot: SnapshotRef,
    calendar: SessionCalendar,
    *,
    fields: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    verify: bool = True,
) -> Panel:
    """Return a snapshot's bars on the sessions of its exchange.

    The sessions run from the snapshot's first bar to its last, whichever symbols are asked for, so that a symbol's
    bars stand at the same place whatever stands beside them.

    Args:
        snapshot: What to load.
        calendar: The calendar the snapshot was imported on.
        fields: Fields beside the five: `vwap` (kept only if a bar knows it) and `factor`; default vwap.
        symbols: Symbols to load, default all.
        verify: Compare every file with the hashes in the manifest.

    Raises:
        UnknownSymbols: The snapshot lacks one of the symbols.
        DataError: A file or the calendar is not what the manifest states, the snapshot reaches beyond the calendar, or
            a field is unknown.
    """
    manifest = snapshot.manifest
    if calendar.name != manifest.calendar:
        raise DataError(f"{snapshot.path}: stands on calendar {manifest.calendar}, was asked for on {calendar.name}")
    chosen = _chosen_symbols(snapshot, symbols)
    try:
        sessions = calendar.sessions_between(manifest.first, manifest.last)
    except CalendarRange as error:
        raise DataError(f"{snapshot.path}: {error}") from error
    grid = _Grid(chosen, sessions, _panel_fields(manifest, fields))
    with ThreadPoolExecutor(READERS) as readers:
        # Each thread fills rows of its own, so that no bars are held twice.
        for _ in readers.map(lambda row: grid.fill(row, read_symbol(snapshot, chosen[row], verify=verify)), grid.rows):
            pass
    return grid.panel(snapshot.id)


class _Grid:
    """The arrays of a panel while they are being filled."""

    def __init__(self, symbols: tuple[str, ...], sessions: SessionArray, fields: tuple[str, ...]) -> None:
        self._symbols, self._sessions = symbols, sessions
        self._fields = {name: np.full((len(symbols), len(sessions)), np.nan) for name in fields}
        self._first: IntArray = np.zeros(len(symbols), np.int64)
        self._last: IntArray = np.zeros(len(symbols), np.int64)

    @property
    def rows(self) -> Iterable[int]:
        return range(len(self._symbols))

    def fill(self, row: int, bars: SymbolBars) -> None:
        at = np.searchsorted(self._sessions, bars.sessions)
        known = at < len(self._sessions)
        strangers = bars.sessions[~known | (self._sessions[np.where(known, at, 0)] != bars.sessions)]
        if len(strangers):
            raise DataError(f"{bars.symbol}: {strangers[0]} is no session of the snapshot's calendar")
        for name, values in self._fields.items():
            if name in bars.columns:
                values[row, at] = bars.columns[name]
        self._first[row], self._last[row] = at[0], at[-1]

    def panel(self, snapshot_id: str) -> Panel:
        for array in (*self._fields.values(), self._first, self._last):
            array.setflags(write=False)
        return Panel(
            symbols=self._symbols,
            sessions=self._sessions,
            fields=MappingProxyType(self._fields),
            first=self._first,
            last=self._last,
            snapshot_id=snapshot_id,
        )


def _complete_folders(data_dir: Path) -> list[Path]:
    root = adjusted_dir(data_dir)
    if not root.is_dir():
        return []
    try:
        dated = [folder for folder in root.iterdir() if _is_day(folder.name)]
        return sorted(folder for folder in dated if (folder / NAME).is_file())
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {error.strerror}") from error


def _is_day(name: str) -> bool:
    """Return whether a folder is named as a run date; 9999-99-99 is not one, and would stand above all that are."""
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def _open(folder: Path) -> SnapshotRef:
    manifest = read_manifest(folder)
    if manifest.run_date.isoformat() != folder.name:
        raise DataError(f"{folder}: its manifest states run date {manifest.run_date}")
    return SnapshotRef(path=folder, manifest=manifest)


def _bars(symbol: str, table: pa.Table) -> SymbolBars:
    sessions = table["date"].cast(pa.date32()).to_numpy().astype("datetime64[D]")
    names = [name for name in COLUMNS if name in table.column_names or name != "vwap"]
    return SymbolBars(symbol=symbol, sessions=sessions, columns={name: _column(table, name) for name in names})


def _column(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table[name].cast(pa.float64()).to_numpy()
    return values


def _refuse_other_bars(bars: SymbolBars, stated: SymbolFile, path: Path, *, verify: bool) -> None:
    sessions = bars.sessions
    if len(sessions) != stated.rows or not len(sessions):
        raise DataError(f"{path}: has {len(sessions)} rows, the manifest states {stated.rows}")
    if np.isnat(sessions).any() or not (np.diff(sessions) > np.timedelta64(0, "D")).all():
        raise DataError(f"{path}: its dates do not ascend")
    if (sessions[0].astype(object), sessions[-1].astype(object)) != (stated.first, stated.last):
        raise DataError(f"{path}: runs {sessions[0]} to {sessions[-1]}, manifest: {stated.first} to {stated.last}")
    if verify and content_sha256(sessions, bars.columns) != stated.content_sha256:
        raise DataError(f"{path}: its bars are not those the manifest states")


def _chosen_symbols(snapshot: SnapshotRef, asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return snapshot.symbols
    unknown = tuple(symbol for symbol in asked if symbol not in snapshot.manifest.files)
    if unknown:
        raise UnknownSymbols(unknown, snapshot.manifest.files)
    return tuple(sorted(set(asked)))


def _panel_fields(manifest: Manifest, asked: Sequence[str] | None) -> tuple[str, ...]:
    extra = ("vwap",) if asked is None else tuple(name for name in asked if name not in FIELDS)
    for name in extra:
        if name not in OPTIONAL_FIELDS:
            raise DataError(f"unknown field {name!r}, a panel holds {', '.join((*FIELDS, *OPTIONAL_FIELDS))}")
    return (*FIELDS, *(name for name in OPTIONAL_FIELDS if name in extra and (name != "vwap" or manifest.has_vwap)))
