"""Correcting: bars that were wrong are replaced, and forgotten corporate actions are applied, with a reason.

Owns: what a correction may change, the steps of one.
Must not know: formats of vendors, how a snapshot shares files.
Invariant: bars that a correction does not name keep their values, bit for bit, unless an action restates them; the
corrected history is judged by the same rules as an imported one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

from strategies.errors import DataError, UnknownSymbols
from strategies.market.appending import recent_bars
from strategies.market.bars import BoolArray, FloatArray, SessionArray
from strategies.market.derived import Change, DerivedReport, write_derived
from strategies.market.imports import ImportOptions
from strategies.market.neighbours import SPLITS
from strategies.market.quarantine import Suspects, judge_rows
from strategies.market.raw_bars import RawBars, open_source
from strategies.market.snapshots import SnapshotRef, latest_snapshot, read_symbol
from strategies.market.store import exclusive, scratch_folder
from strategies.market.symbol_bars import SymbolBars
from strategies.market.verdicts import Settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What is to be corrected, and why."""

    reason: str
    #: Bars as they were paid that take the place of those of their date, or fill a gap.
    source: Path | None = None
    #: (symbol, first session after it, new shares for one).
    splits: tuple[tuple[str, date, float], ...] = ()
    #: (symbol, ex-day, cash of one share as it traded on the session before).
    dividends: tuple[tuple[str, date, float], ...] = ()
    #: (symbol, session) of bars to remove.
    drops: tuple[tuple[str, date], ...] = ()
    options: ImportOptions = field(default_factory=ImportOptions)

    @property
    def symbols(self) -> set[str]:
        """Return the symbols that are named, those of the source left out."""
        return {one[0] for one in self.splits} | {one[0] for one in self.dividends} | {one[0] for one in self.drops}


def correct_bars(data_dir: Path, correction: Correction, *, run_date: date) -> DerivedReport:
    """Write a snapshot in which bars of the latest one are corrected, and return what was done.

    Args:
        data_dir: Holds the snapshot to correct.
        correction: What to change.
        run_date: Names the new snapshot.

    Raises:
        DataError: There is no reason, nothing changes, or the source cannot be read.
        UnknownSymbols: A symbol is named that the snapshot lacks.
        SnapshotNotFound: There is nothing to correct.
    """
    if not correction.reason.strip():
        raise DataError("a correction needs a reason")
    base = latest_snapshot(data_dir)
    calendar = base.open_calendar()
    settled = Settled(calendar=calendar, run_date=run_date, rules=correction.options.rules)
    rows = _rows(correction, settled)
    wanted = sorted(correction.symbols | set(rows))
    unknown = tuple(symbol for symbol in wanted if symbol not in base.manifest.files)
    if unknown:
        raise UnknownSymbols(unknown, base.manifest.files)
    replaced, raw, unsettled, held = {}, {}, {}, []
    for symbol in wanted:
        bars, paid, flags, days = _corrected(base, symbol, rows.get(symbol), correction, settled)
        replaced[symbol], raw[symbol] = bars, paid
        if flags is not None:
            held.append(flags)
        if days:
            unsettled[symbol] = days
    facts = {
        "reason": correction.reason.strip()[:500],
        "source": correction.source.name if correction.source else "",
        "splits": [f"{symbol}={day}:{ratio:g}" for symbol, day, ratio in correction.splits],
        "dividends": [f"{symbol}={day}:{cash:g}" for symbol, day, cash in correction.dividends],
        "dropped": [f"{symbol}={day}" for symbol, day in correction.drops],
    }
    change = Change(kind="correct", replaced=replaced, raw=raw, unsettled=unsettled, held=held, facts=facts)
    with exclusive(data_dir), scratch_folder(data_dir) as scratch:
        return write_derived(scratch, data_dir, base, recent_bars(base), change, settled)


def _rows(correction: Correction, settled: Settled) -> dict[str, RawBars]:
    if correction.source is None:
        return {}
    options = correction.options
    raw = open_source(correction.source, options.columns, "none", calendar=settled.calendar, like=options.like)
    return {symbol: raw.read(symbol) for symbol in raw.symbols}


class _Corrected(NamedTuple):
    """One symbol after a correction."""

    bars: tuple[SessionArray, dict[str, FloatArray]]
    #: What was paid, where it is not what the bars state.
    raw: dict[str, FloatArray]
    held: tuple[RawBars, dict[str, BoolArray]] | None
    unsettled: tuple[date, ...]


def _corrected(
    base: SnapshotRef, symbol: str, rows: RawBars | None, correction: Correction, settled: Settled
) -> _Corrected:
    bars = _without(read_symbol(base, symbol, raw=True), [day for one, day in correction.drops if one == symbol])
    raw = bars.as_paid()
    sessions, factor = bars.sessions, bars.columns["factor"].copy()
    adjusted = {name: values.copy() for name, values in bars.columns.items() if name not in {"factor", "halted"}}
    touched = np.zeros(len(sessions), bool)
    if rows is not None:
        sessions, raw, factor, adjusted, touched = _replaced(sessions, raw, factor, adjusted, rows)
    step = _steps(symbol, sessions, raw["close"], factor, correction)
    factor, touched = factor * step, touched | (step != 1.0)
    for name, values in adjusted.items():
        new = raw[name] / factor if name == "volume" else raw[name] * factor
        adjusted[name] = np.where(touched, new, values)
    suspects = Suspects(symbol=symbol, dates=sessions, raw=raw, adjusted=adjusted, factor=factor)
    judgement = judge_rows(suspects, settled.calendar, settled.run_date, settled.rules)
    # What was accepted before stays; only what the correction touches is judged anew.
    flags = {reason: flag & touched for reason, flag in judgement.flags.items() if (flag & touched).any()}
    kept = ~np.logical_or.reduce([np.zeros(len(sessions), bool), *flags.values()])
    if not kept.any():
        raise DataError(f"{symbol}: no bar is left after the correction")
    columns = {name: values[kept] for name, values in {**adjusted, "factor": factor}.items()}
    if "halted" in bars.columns and len(sessions) == len(bars.sessions):
        columns["halted"] = bars.columns["halted"][kept]
    held = (_as_rows(symbol, sessions, raw), flags) if flags else None
    paid = {} if (factor == 1).all() else {name: values[kept] for name, values in raw.items()}
    return _Corrected((sessions[kept], columns), paid, held, judgement.unsettled)


def _without(bars: SymbolBars, days: list[date]) -> SymbolBars:
    dropped = np.isin(bars.sessions, np.array(days, dtype="datetime64[D]"))
    if dropped.sum() != len(set(days)):
        raise DataError(f"{bars.symbol}: has no bar on one of {', '.join(map(str, days))}")
    columns, raw = ({name: values[~dropped] for name, values in one.items()} for one in (bars.columns, bars.raw))
    return SymbolBars(symbol=bars.symbol, sessions=bars.sessions[~dropped], columns=columns, raw=raw)


def _replaced(
    sessions: SessionArray,
    raw: Mapping[str, FloatArray],
    factor: FloatArray,
    adjusted: Mapping[str, FloatArray],
    rows: RawBars,
) -> tuple[SessionArray, dict[str, FloatArray], FloatArray, dict[str, FloatArray], BoolArray]:
    """Return the bars with those of the correction in their places; a new date takes the factor of the bar before."""
    known = ~np.isnat(rows.dates)
    if rows.unreadable or not known.all():
        row, cell = next(iter(rows.unreadable.items()), (0, ("date", "")))
        raise DataError(f"{rows.file}: row {rows.rows[row]}, column {cell[0]} was {cell[1]!r}")
    if len(np.unique(rows.dates)) != len(rows.dates):
        raise DataError(f"{rows.file}: {rows.symbol} has several rows of one date")
    every = np.union1d(sessions, rows.dates)
    old, new = np.searchsorted(every, sessions), np.searchsorted(every, rows.dates)
    before = np.clip(np.searchsorted(sessions, every, side="right") - 1, 0, len(sessions) - 1)
    wide_raw, wide = {}, {}
    for name, values in raw.items():
        wide_raw[name], wide[name] = np.full(len(every), np.nan), np.full(len(every), np.nan)
        wide_raw[name][old], wide[name][old] = values, adjusted[name]
        wide_raw[name][new] = rows.values.get(name, np.full(len(new), np.nan))
    touched = np.zeros(len(every), bool)
    touched[new] = True
    return every, wide_raw, factor[before], wide, touched


def _steps(
    symbol: str, sessions: SessionArray, close: FloatArray, factor: FloatArray, correction: Correction
) -> FloatArray:
    """Return what the factor of each bar is multiplied by, `[bars]`.

    A split or a dividend takes the place of the one that was applied on its day; where there was none, of nothing.
    """
    step = np.ones(len(sessions))
    for one, day, ratio in correction.splits:
        if one == symbol:
            before = np.flatnonzero(sessions < np.datetime64(day, "D"))
            step[before] /= ratio * _applied(factor, len(before))[0]
    for one, day, cash in correction.dividends:
        if one == symbol:
            before = np.flatnonzero(sessions < np.datetime64(day, "D"))
            if not len(before) or not 0 <= cash < close[before[-1]]:
                raise DataError(f"{symbol}: a dividend of {cash:g} on {day} is not below the close before it")
            step[before] *= (1 - cash / close[before[-1]]) / _applied(factor, len(before))[1]
    return step


def _applied(factor: FloatArray, at: int) -> tuple[float, float]:
    """Return the steps of the split and of the dividend that were applied between a bar and the one before it."""
    if not 0 < at < len(factor):
        return 1.0, 1.0
    step = float(factor[at - 1] / factor[at])
    ratios = np.concatenate((1 / SPLITS, SPLITS, [1.0]))
    # A dividend makes the earlier prices lower, by less than a split does.
    rests = step / ratios
    likely = np.where((rests > 0.8) & (rests < 1 + 1e-9), np.abs(np.log(rests)), np.inf)  # noqa: PLR2004 - a large one
    nearest = int(np.argmin(likely))
    return (float(ratios[nearest]), float(rests[nearest])) if np.isfinite(likely[nearest]) else (step, 1.0)


def _as_rows(symbol: str, sessions: SessionArray, raw: Mapping[str, FloatArray]) -> RawBars:
    rows = np.arange(1, len(sessions) + 1)
    return RawBars(symbol=symbol, dates=sessions, values=dict(raw), rows=rows, adjustment="none", file="correction")
