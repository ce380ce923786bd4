"""Appending: a session or a few on top of a snapshot, without importing the history again.

Owns: which rows are new, how they are judged by the bars before them, the steps of an append.
Must not know: formats of vendors, how a snapshot shares files.
Invariant: an appended row is judged by the same rules as an imported one; a row that differs from a bar that is there
already is held back: `correcting` owns what changes bars.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import numpy as np

from strategies.errors import DataError
from strategies.market.actions import understand, with_splits
from strategies.market.adjustment import adjust
from strategies.market.bars import BoolArray, FloatArray, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.derived import Change, DerivedReport, write_derived
from strategies.market.imports import ImportOptions
from strategies.market.lives import planned, rows_of
from strategies.market.parts import RECENT_BARS, ManyBars, SymbolColumns, gathered, read_recent
from strategies.market.quarantine import Suspects, judge_rows
from strategies.market.raw_bars import RawBars, open_source
from strategies.market.snapshots import SnapshotRef, latest_snapshot, read_symbol
from strategies.market.store import exclusive, scratch_folder
from strategies.market.verdicts import Settled

#: Moves, volumes and spikes of a bar that needs no closer look.
_CALM_MOVE, _CALM_VOLUME, _CALM_RANGE = 0.1, 8.0, 1.3
#: Bars before a row that it is compared with for repeats.
_REPEATS = 5
_PRICES = ("open", "high", "low", "close")


@dataclass(slots=True, kw_only=True)
class _Additions:
    """What an append adds, and what it held back."""

    bars: dict[str, tuple[SessionArray, dict[str, FloatArray]]] = field(default_factory=dict)
    #: Symbol to what its earlier prices are multiplied by, for actions that came with the new rows.
    restated: dict[str, float] = field(default_factory=dict)
    unsettled: dict[str, tuple[date, ...]] = field(default_factory=dict)
    held: list[tuple[RawBars, dict[str, BoolArray]]] = field(default_factory=list)
    unchanged: int = 0


def append_bars(
    source: Path,
    data_dir: Path,
    *,
    run_date: date,
    options: ImportOptions | None = None,
    now: datetime | None = None,
) -> DerivedReport:
    """Write a snapshot with more sessions on top of the latest one, and return what was done.

    Args:
        source: Bars of one session or a few: a file of many symbols, or a folder.
        data_dir: Holds the snapshot to append to.
        run_date: Names the new snapshot.
        options: How to read and judge; the calendar is that of the snapshot.
        now: The clock of the append; None: every session up to the run date had closed.

    Raises:
        DataError: The source cannot be read, or holds no new bar.
        SnapshotNotFound: There is nothing to append to.
    """
    options = options or ImportOptions()
    base = latest_snapshot(data_dir)
    calendar = base.open_calendar()
    raw = open_source(source, options.columns, options.adjustment, calendar=calendar, like=options.like)
    closed = None if now is None else calendar.last_complete_session(now, settle_minutes=options.settle_minutes)
    settled = Settled(
        calendar=calendar, run_date=run_date, rules=options.rules, closed_until=closed, splits=options.splits
    )
    with exclusive(data_dir), scratch_folder(data_dir) as scratch:
        recent = recent_bars(base)
        added = _Additions()
        days = _Days(settled)
        plan = planned(raw.symbols, options.lives)
        _refuse_splits(options.splits, plan, base)
        for symbol in plan:
            try:
                rows, ended = rows_of(raw, symbol, plan, options.lives)
                if len(rows.rows):
                    _add(rows, ended, recent, base, settled, days, added)
            except DataError as error:
                raw.refused[symbol] = str(error)
        if not added.bars:
            reasons = Counter(reason for _, flags in added.held for reason in flags)
            raise DataError(f"{source}: no new bar; rows that are there already {added.unchanged}, {dict(reasons)}")
        change = Change(
            kind="append",
            added=added.bars,
            restated=added.restated,
            unsettled=added.unsettled,
            held=added.held,
            refused=raw.refused,
            facts={
                "source": source.name,
                "vendor": raw.vendor.name,
                "unchanged": added.unchanged,
                "splits": [f"{symbol}={day}:{ratio:g}" for symbol, day, ratio in options.splits],
            },
        )
        return write_derived(scratch, data_dir, base, recent, change, settled)


def _refuse_splits(splits: Sequence[tuple[str, date, float]], plan: Collection[str], base: SnapshotRef) -> None:
    """Refuse splits that no appended row shows."""
    for symbol, day, _ in splits:
        file = base.manifest.files.get(symbol)
        if file is not None and day <= file.last:
            raise DataError(f"{symbol}: a split of {day} is in the history up to {file.last}: `data correct --split`")
        if symbol not in plan:
            raise DataError(f"{symbol}: has a split of {day} and no new row")


def recent_bars(snapshot: SnapshotRef) -> ManyBars:
    """Return the last bars of all symbols: of the file that keeps them, or read anew where it is not as stated."""
    stated = str(snapshot.manifest.origin.get("recent_sha256", ""))
    try:
        if stated:
            return read_recent(snapshot.path, stated)
    except DataError:
        pass  # it is a cache, and was perhaps lost in a power cut
    return gathered(_last(snapshot, symbol) for symbol in snapshot.symbols)


def _last(snapshot: SnapshotRef, symbol: str) -> SymbolColumns:
    bars = read_symbol(snapshot, symbol)
    return symbol, bars.sessions[-RECENT_BARS:], {name: values[-RECENT_BARS:] for name, values in bars.columns.items()}


class _Days:
    """Which days may be appended, as a set that is asked for each row."""

    def __init__(self, settled: Settled) -> None:
        last = min(settled.closed_until or date.max, settled.run_date)
        sessions = settled.calendar.sessions
        kept = sessions[sessions <= np.datetime64(last, "D")]
        self._days = frozenset(kept.astype("datetime64[D]").astype(np.int64).tolist())

    def __contains__(self, day: int) -> bool:
        return day in self._days


def _add(
    rows: RawBars,
    ended: BoolArray | None,
    recent: ManyBars,
    base: SnapshotRef,
    settled: Settled,
    days: _Days,
    added: _Additions,
) -> None:
    sessions, columns = recent.of(rows.symbol)
    if not len(sessions) and rows.symbol in base.manifest.files:
        raise DataError(f"{rows.symbol}: its last bars are unknown")
    split = any(symbol == rows.symbol for symbol, *_ in settled.splits)
    calm = None if split or (ended is not None and ended.any()) else _calm(rows, sessions, columns, days)
    if calm is not None:
        added.bars[rows.symbol] = rows.dates, calm
        return
    last = sessions[-1] if len(sessions) else np.datetime64("0001-01-01", "D")
    new = np.flatnonzero(~(rows.dates <= last))
    old = np.flatnonzero(rows.dates <= last)
    if len(old):
        _compare(rows.taken(old), sessions, columns, added)
    if len(new):
        _judge(rows.taken(new), None if ended is None else ended[new], (sessions, columns), settled, added)


def _calm(
    rows: RawBars, sessions: SessionArray, columns: Mapping[str, FloatArray], days: _Days
) -> dict[str, FloatArray] | None:
    """Return the columns of one new row that no rule can object to; None: it needs a closer look."""
    if len(rows.rows) != 1 or len(sessions) < _REPEATS or rows.unreadable or rows.halted is not None:
        return None
    if rows.adjustment != "none" or rows.dates[0] <= sessions[-1] or int(rows.dates[0].astype(np.int64)) not in days:
        return None
    opened, high, low, close, volume = (float(rows.values[name][0]) for name in (*_PRICES, "volume"))
    before, traded = float(columns["close"][-1]), float(columns["volume"][-1])
    if not (0 < low <= min(opened, close) and max(opened, close) <= high < 1e30 and 0 < volume < 1e30 and traded > 0):  # noqa: PLR2004 - far inside float32
        return None
    steady = all(abs(price / before - 1) < _CALM_MOVE for price in (opened, close)) and low > 1e-30  # noqa: PLR2004
    if not steady or high > close * _CALM_RANGE or low * _CALM_RANGE < close:
        return None
    if not 1 / _CALM_VOLUME < volume / traded < _CALM_VOLUME or close in columns["close"][-_REPEATS:]:
        return None
    vwap = rows.values.get("vwap")
    if vwap is not None and not (vwap[0] > 0 or np.isnan(vwap[0])):
        return None
    kept = {name: rows.values[name] for name in (*_PRICES, "volume")} | {"factor": np.ones(1)}
    return kept if vwap is None or np.isnan(vwap[0]) else kept | {"vwap": vwap}


def _compare(rows: RawBars, sessions: SessionArray, columns: Mapping[str, FloatArray], added: _Additions) -> None:
    """Count rows that are bars already, and hold back those that differ from them."""
    at = np.searchsorted(sessions, rows.dates)
    known = (at < len(sessions)) & (sessions[np.minimum(at, len(sessions) - 1)] == rows.dates)
    at = np.minimum(at, len(sessions) - 1)
    factor = columns.get("factor", np.ones(len(sessions)))[at]
    same = known.copy()
    for name in _PRICES:
        same &= np.isclose(columns[name][at] / factor, rows.values[name], rtol=1e-9, atol=0)
    added.unchanged += int(same.sum())
    if not same.all():
        added.held.append((rows, {"conflicting_date": ~same}))


def _judge(
    rows: RawBars,
    ended: BoolArray | None,
    past_bars: tuple[SessionArray, Mapping[str, FloatArray]],
    settled: Settled,
    added: _Additions,
) -> None:
    """Judge new rows by the bars before them, as an import would."""
    sessions, columns = past_bars
    count = len(sessions)
    past = columns.get("factor", np.ones(count))
    dates = np.concatenate((sessions, rows.dates))
    context = {name: columns[name] / past for name in _PRICES} | {"volume": columns["volume"] * past}
    raw = {
        name: np.concatenate((context.get(name, np.full(count, np.nan)), values))
        for name, values in rows.values.items()
    }
    if rows.adjustment != "none":
        for name, known in (("factor", past), ("adj_close", columns["close"])):
            if name in raw:
                raw[name][:count] = known
    found = understand(dates, raw, rows.adjustment, _following(dates, settled.calendar))
    step = float(found.multiplier[count - 1] / past[-1]) if count and found.used == "actions" else 1.0
    splits = [(day, ratio) for symbol, day, ratio in settled.splits if symbol == rows.symbol]
    found = with_splits(found, dates, splits)
    # All of them are after the last bar that is there.
    step /= float(np.prod([ratio for _, ratio in splits]))
    new = adjust({name: values[count:] for name, values in raw.items()}, found.multiplier[count:])
    adjusted = {name: np.concatenate((_scaled(columns, name, step, count), values)) for name, values in new.items()}
    suspects = Suspects(
        symbol=rows.symbol,
        dates=dates,
        raw=raw,
        adjusted=adjusted,
        factor=np.concatenate((past * step, found.factor[count:])),
        unreadable=np.isin(np.arange(len(dates)) - count, list(rows.unreadable)) if rows.unreadable else None,
        contradicting=found.contradicting,
        closed_until=settled.closed_until,
        ended=None if ended is None else np.concatenate((np.zeros(count, bool), ended)),
    )
    judgement = judge_rows(suspects, settled.calendar, settled.run_date, settled.rules)
    flags = {reason: flag[count:] for reason, flag in judgement.flags.items() if flag[count:].any()}
    if flags:
        added.held.append((rows, flags))
    kept = np.flatnonzero(~np.logical_or.reduce([np.zeros(len(rows.dates), bool), *flags.values()]))
    kept = kept[np.argsort(rows.dates[kept], kind="stable")]
    if not len(kept):
        return
    chosen = {name: values[kept] for name, values in new.items()} | {"factor": found.factor[count:][kept]}
    if rows.halted is not None and rows.halted[kept].any():
        chosen["halted"] = rows.halted[kept].astype(np.float64)
    added.bars[rows.symbol] = rows.dates[kept], chosen
    if step != 1.0:
        added.restated[rows.symbol] = step
    days = tuple(day for day in judgement.unsettled if np.datetime64(day, "D") in rows.dates[kept])
    if days:
        added.unsettled[rows.symbol] = days


def _scaled(columns: Mapping[str, FloatArray], name: str, step: float, count: int) -> FloatArray:
    if name not in columns:
        return np.full(count, np.nan)
    return columns[name] / step if name == "volume" else columns[name] * step


def _following(dates: SessionArray, calendar: SessionCalendar) -> BoolArray:
    at = np.searchsorted(calendar.sessions, dates)
    following: BoolArray = np.concatenate(([False], np.diff(at) == 1))[: len(dates)]
    return following
