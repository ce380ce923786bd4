"""Snapshots: complete T1 imports on disk, and the panels made of them.

Owns: finding snapshots, reading their Parquet files, aligning bars on the exchange calendar.
Must not know: how rows were judged, features, requests.
Invariant: a folder without a manifest does not exist; a panel holds exactly the bars whose hashes the manifest states;
what serves passed every check of `rules`, those of its manifest and those that are newer.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType

import numpy as np

from strategies.errors import CalendarRange, DataError, SnapshotNotFound, SnapshotRefused, UnknownSymbols
from strategies.market.bars import FIELDS, BoolArray, IntArray, Panel, SessionArray
from strategies.market.calendar import SessionCalendar, canonical_name
from strategies.market.checks import closes_of, judged_late, run_checks
from strategies.market.manifest import (
    NAME,
    CheckResult,
    Manifest,
    read_manifest,
)
from strategies.market.rules import SNAPSHOT_RULES, Rules, row_versions
from strategies.market.symbol_bars import SymbolBars, read_bars
from strategies.market.symbols import folded

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
        """Return the code of the exchange calendar of the bars; never an alias."""
        return self.manifest.calendar if self.manifest.calendar_definition else canonical_name(self.manifest.calendar)

    def open_calendar(self) -> SessionCalendar:
        """Return the calendar of the bars, as it was when they were imported.

        Raises:
            DataError: It does not open.
        """
        return SessionCalendar(self.manifest.calendar, definition=self.manifest.calendar_definition)

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


def adjusted_dir(data_dir: Path) -> Path:
    """Return the folder below which snapshots lie, one a run date."""
    return data_dir / "adjusted"


def list_snapshots(data_dir: Path) -> tuple[SnapshotRef, ...]:
    """Return every complete snapshot, oldest run date first.

    Raises:
        DataError: A manifest is unreadable.
    """
    return tuple(open_snapshot(folder) for folder in _complete_folders(data_dir))


def newest_first(data_dir: Path) -> Iterator[SnapshotRef]:
    """Return complete snapshots one by one, latest run date and revision first.

    Raises:
        DataError: A manifest is unreadable, when its turn comes.
    """
    return (open_snapshot(folder) for folder in reversed(_complete_folders(data_dir)))


def last_of_day(data_dir: Path, day: date) -> SnapshotRef | None:
    """Return the last revision of a run date; None: there is no complete snapshot of it.

    Raises:
        DataError: Its manifest is unreadable.
    """
    folders = [one for one in _complete_folders(data_dir) if one.name.partition(".")[0] == day.isoformat()]
    return open_snapshot(folders[-1]) if folders else None


def latest_snapshot(data_dir: Path) -> SnapshotRef:
    """Return the complete snapshot of the latest run date.

    Raises:
        SnapshotNotFound: There is none.
        DataError: Its manifest is unreadable; an older snapshot never stands in for it.
    """
    folders = _complete_folders(data_dir)
    if not folders:
        raise SnapshotNotFound(f"no complete snapshot below {adjusted_dir(data_dir)}")
    return open_snapshot(folders[-1])


def find_snapshot(data_dir: Path, name: str) -> SnapshotRef:
    """Return the latest snapshot of that id, of an id that starts so (8 digits or more), or of that run date.

    `2024-06-28.2` is the second revision of a run date, `2024-06-28` its latest one.

    Raises:
        SnapshotNotFound: There is none, or the first digits fit several ids.
        DataError: A manifest is unreadable.
    """
    snapshots = list_snapshots(data_dir)
    if re.fullmatch(r"[0-9a-f]{8,64}", name):
        found = [snapshot for snapshot in snapshots if snapshot.id.startswith(name)]
    else:
        found = [one for one in snapshots if name in {one.path.name, one.path.name.partition(".")[0]}][-1:]
    if len({snapshot.id for snapshot in found}) != 1:
        count = f"{len(found)} fit" if found else "none fits"
        raise SnapshotNotFound(f"snapshot {name[:80]!r}: {count} of {len(snapshots)} below {adjusted_dir(data_dir)}")
    return found[-1]


def read_symbol(snapshot: SnapshotRef, symbol: str, *, verify: bool = True, raw: bool = False) -> SymbolBars:
    """Return one symbol's bars.

    Args:
        snapshot: Where to read.
        symbol: As the snapshot spells it.
        verify: Compare the file's bytes and the bars' values with the hashes in the manifest.
        raw: Read what the vendor wrote, too.

    Raises:
        UnknownSymbols: The snapshot has no such symbol.
        DataError: The file is absent, truncated, or not what the manifest states.
    """
    if symbol not in snapshot.manifest.files:
        raise UnknownSymbols((symbol,), snapshot.manifest.files)
    return read_bars(snapshot.path, snapshot.manifest, symbol, verify=verify, raw=raw)


def load_panel(
    snapshot: SnapshotRef,
    calendar: SessionCalendar,
    *,
    fields: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    verify: bool = True,
    spare: int = 0,
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
        spare: Sessions to come that the arrays have room for, so that appended ones need no other arrays.

    Raises:
        UnknownSymbols: The snapshot lacks one of the symbols.
        DataError: A file or the calendar is not what the manifest states, the snapshot reaches beyond the calendar, or
            a field is unknown.
    """
    manifest = snapshot.manifest
    if calendar.name != snapshot.calendar:
        raise DataError(f"{snapshot.path}: stands on calendar {manifest.calendar}, was asked for on {calendar.name}")
    chosen = _chosen_symbols(snapshot, symbols)
    try:
        sessions = calendar.sessions_between(manifest.first, manifest.last)
    except CalendarRange as error:
        raise DataError(f"{snapshot.path}: {error}") from error
    grid = _Grid(chosen, sessions, _panel_fields(manifest, fields), spare)
    with ThreadPoolExecutor(READERS) as readers:
        # Each thread fills rows of its own, so that no bars are held twice.
        for _ in readers.map(lambda row: grid.fill(row, read_symbol(snapshot, chosen[row], verify=verify)), grid.rows):
            pass
    return grid.panel(snapshot.id, unsettled_marks(manifest, chosen, sessions))


def require_passed(
    snapshot: SnapshotRef, panel: Panel, rules: Rules | None = None, *, given: Collection[str] = ()
) -> None:
    """Do nothing if a snapshot passed every check; those that its manifest does not state are run now.

    Args:
        snapshot: The snapshot.
        panel: All of its bars.
        rules: Limits of the checks that are run now.
        given: Names of limits that this worker was given: checks that were held to other ones are run again.

    Raises:
        SnapshotRefused: It did not pass one of them.
    """
    results = check_results(snapshot, panel, rules, given=given)
    failed = [result for result in results.values() if not result.passed]
    if failed:
        raise SnapshotRefused(
            snapshot.path.name, snapshot.id, "; ".join(f"{result.name}: {result.detail}" for result in failed)
        )


def check_results(
    snapshot: SnapshotRef, panel: Panel, rules: Rules | None = None, *, given: Collection[str] = ()
) -> dict[str, CheckResult]:
    """Return name to what each check found: as the manifest states it, or run now where it does not."""
    manifest = snapshot.manifest
    rules = replace(
        rules or Rules(),
        confirmed_moves=manifest.confirmed_moves,
        confirmed_sessions=manifest.confirmed_sessions,
    )
    known = stated_results(manifest, rules, given)
    missing = frozenset(rule.name for rule in SNAPSHOT_RULES) - set(known)
    results = known | (run_checks(closes_of(panel), rules, names=missing) if missing else {})
    newer = [name for name, version in row_versions().items() if manifest.rules.get(name, 0) < version]
    if newer:
        late = judged_late(panel, snapshot.open_calendar(), manifest.run_date, rules, newer)
        results[late.name] = late
    return results


def stated_results(manifest: Manifest, rules: Rules, given: Collection[str] = ()) -> dict[str, CheckResult]:
    """Return name to what a manifest states of the checks of this release, with the limits that are asked for."""
    stated = {rule: manifest.checks[rule.name] for rule in SNAPSHOT_RULES if rule.name in manifest.checks}
    return {
        rule.name: check
        for rule, check in stated.items()
        if check.version >= rule.version and (rule.limit not in given or check.limit == getattr(rules, rule.limit))
    }


def unsettled_marks(manifest: Manifest, symbols: tuple[str, ...], sessions: SessionArray) -> BoolArray | None:
    """Return the sessions at which an unsettled level began, `[symbols, sessions]`; None: there is none."""
    if not any(symbol in manifest.unsettled for symbol in symbols):
        return None
    marked = np.zeros((len(symbols), len(sessions)), bool)
    for row, symbol in enumerate(symbols):
        days = np.array(manifest.unsettled.get(symbol, ()), dtype="datetime64[D]")
        marked[row, np.isin(sessions, days)] = True
    return marked


class _Grid:
    """The arrays of a panel while they are being filled."""

    def __init__(self, symbols: tuple[str, ...], sessions: SessionArray, fields: tuple[str, ...], spare: int) -> None:
        self._symbols, self._sessions = symbols, sessions
        arrays = {name: np.full((len(symbols), len(sessions) + spare), np.nan) for name in fields}
        self._fields = {name: array[:, : len(sessions)] for name, array in arrays.items()}
        self._spare = arrays if spare else {}
        self._first: IntArray = np.zeros(len(symbols), np.int64)
        self._last: IntArray = np.zeros(len(symbols), np.int64)
        self._halted: dict[int, IntArray] = {}

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
        if "halted" in bars.columns:
            self._halted[row] = at[bars.columns["halted"] > 0]
        self._first[row], self._last[row] = at[0], at[-1]

    def panel(self, snapshot_id: str, unsettled: BoolArray | None = None) -> Panel:
        marks = {} if unsettled is None else {"unsettled": unsettled}
        if self._halted:
            marks["halted"] = np.zeros((len(self._symbols), len(self._sessions)), bool)
            for row, at in self._halted.items():
                marks["halted"][row, at] = True
        for marked in marks.values():
            marked.setflags(write=False)
        for array in (*self._fields.values(), self._first, self._last):
            array.setflags(write=False)
        return Panel(
            symbols=self._symbols,
            sessions=self._sessions,
            fields=MappingProxyType(self._fields),
            first=self._first,
            last=self._last,
            snapshot_id=snapshot_id,
            marks=MappingProxyType(marks),
            spare=MappingProxyType(self._spare),
        )


def _complete_folders(data_dir: Path) -> list[Path]:
    root = adjusted_dir(data_dir)
    if not root.is_dir():
        return []
    try:
        dated = [folder for folder in root.iterdir() if _run_date(folder.name) is not None]
        complete = [folder for folder in dated if (folder / NAME).is_file()]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {error.strerror}") from error
    return sorted(complete, key=lambda folder: _run_date(folder.name) or (date.min, 0))


def _run_date(name: str) -> tuple[date, int] | None:
    """Return the run date and revision that a folder is named as; 9999-99-99 is none, and would be above all."""
    day, point, revision = name.partition(".")
    try:
        if date.fromisoformat(day).isoformat() != day or (point and str(int(revision)) != revision):
            return None
    except ValueError:
        return None
    return date.fromisoformat(day), int(revision or 1)


def open_snapshot(folder: Path) -> SnapshotRef:
    """Return the complete snapshot in a folder.

    Raises:
        DataError: Its manifest is unreadable, or of another folder.
    """
    manifest = read_manifest(folder)
    if manifest.folder != folder.name:
        raise DataError(f"{folder}: its manifest states run date {manifest.run_date}, revision {manifest.revision}")
    return SnapshotRef(path=folder, manifest=manifest)


def _chosen_symbols(snapshot: SnapshotRef, asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return snapshot.symbols
    wanted = [folded(symbol) for symbol in asked]
    unknown = tuple(symbol for symbol in wanted if symbol not in snapshot.manifest.files)
    if unknown:
        raise UnknownSymbols(unknown, snapshot.manifest.files)
    return tuple(sorted(set(wanted)))


def _panel_fields(manifest: Manifest, asked: Sequence[str] | None) -> tuple[str, ...]:
    extra = ("vwap",) if asked is None else tuple(name for name in asked if name not in FIELDS)
    for name in extra:
        if name not in OPTIONAL_FIELDS:
            raise DataError(f"unknown field {name!r}, a panel holds {', '.join((*FIELDS, *OPTIONAL_FIELDS))}")
    return (*FIELDS, *(name for name in OPTIONAL_FIELDS if name in extra and (name != "vwap" or manifest.has_vwap)))
