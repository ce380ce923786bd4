"""Importing: raw daily bars into a T1 snapshot.

Owns: the order of an import, the files it writes, and that they appear all at once.
Must not know: formats of vendors, rules of judgement, panels.
Invariant: every row read is either a bar of the snapshot or a row of the quarantine; a snapshot that can be seen is
complete and never changes; a run date that is imported again gets a revision.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np

from strategies.errors import DataError
from strategies.files import sync, write_synced
from strategies.market.bars import BoolArray, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.calendar_files import open_calendar
from strategies.market.checks import Gathering, run_checks
from strategies.market.exchanges import foreign_hint, sessions_without_bars
from strategies.market.imports import ImportOptions, ImportReport
from strategies.market.lives import planned, rows_of
from strategies.market.manifest import (
    NAME,
    Manifest,
    SymbolFile,
    encode_manifest,
    snapshot_id,
)
from strategies.market.parts import RECENT, RECENT_BARS, SymbolColumns, gathered, write_many
from strategies.market.pipelines import Ahead, Behind
from strategies.market.raw_bars import RawBars, RawSource, open_source
from strategies.market.rules import row_versions, stated
from strategies.market.snapshot_files import write_bars, write_quarantine, write_refused
from strategies.market.snapshots import adjusted_dir
from strategies.market.store import exclusive, placed, publish, scratch_folder
from strategies.market.verdicts import HELD, Judged, Settled, is_foreign, judged, shows_adjusted_prices

__all__ = ["ImportOptions", "ImportReport", "import_bars"]

#: Called after each symbol with symbols done, symbols in all, and the symbol.
Progress = Callable[[int, int, str], None]
#: Symbols that are looked into before the others, to learn what a factor means.
_SAMPLES = 24


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been written so far."""

    files: dict[str, SymbolFile] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, int] = field(default_factory=dict)
    adjustments: Counter[str] = field(default_factory=Counter)
    adjusted: dict[str, str] = field(default_factory=dict)
    readings: set[str] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    unsettled: dict[str, tuple[date, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    gathering: Gathering
    #: Distinct dates of all rows, ascending.
    dates: SessionArray = field(default_factory=lambda: np.empty(0, "datetime64[D]"))
    foreign: list[str] = field(default_factory=list)
    rows: int = 0
    has_vwap: bool = False
    #: The last bars of each symbol, by which appended ones are judged.
    recent: list[SymbolColumns] = field(default_factory=list)


def import_bars(
    source: Path,
    data_dir: Path,
    *,
    run_date: date,
    options: ImportOptions | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the snapshot of a run date and its quarantine, and return what was done.

    Files are written to hidden folders, synced, and renamed: quarantine first, the snapshot last. Running the same
    import again finds the same bars and changes nothing; other bars make a revision of the run date.

    Args:
        source: A folder with a CSV or Parquet file a symbol or a session, one file, or Qlib's binary directory.
        data_dir: `adjusted/<run date>/` and `quarantine/<run date>/` are made below it.
        run_date: Names the snapshot; rows dated later cannot be true.
        options: How to read and judge.
        now: The clock of the import: sessions that had not closed by then are no bars. None: every session up to the
            run date had.
        progress: Called after each symbol.

    Raises:
        DataError: The source cannot be read, holds no true row, too many that are not, or is of another exchange.
        UnknownCalendar: The options name a calendar that does not exist.
    """
    options = options or ImportOptions()
    calendar = open_calendar(options.calendar, data_dir)
    raw = open_source(source, options.columns, options.adjustment, calendar=calendar, like=options.like)
    settled = _settled(raw, calendar, run_date, options, now)
    with exclusive(data_dir), scratch_folder(data_dir) as scratch:
        tally = _write_symbols(raw, scratch, settled, options, progress)
        _refuse_too_much(tally, settled, source)
        # A cache that can be made again: it is not synced, and read only if its hash is the stated one.
        recent = write_many(scratch / "adjusted" / RECENT, gathered(tally.recent), synced=False)
        tally.recent.clear()
        manifest, created = placed(data_dir, _manifest(tally, settled, options, source, raw, recent))
        if created:
            _seal(scratch, manifest)
            publish(scratch, data_dir, manifest)
    return _report(tally, manifest, adjusted_dir(data_dir) / manifest.folder, calendar, created=created)


def _settled(
    raw: RawSource, calendar: SessionCalendar, run_date: date, options: ImportOptions, now: datetime | None
) -> Settled:
    closed = None if now is None else calendar.last_complete_session(now, settle_minutes=options.settle_minutes)
    settled = Settled(
        calendar=calendar, run_date=run_date, rules=options.rules, closed_until=closed, splits=options.splits
    )
    samples = []
    for symbol in raw.symbols[:: max(1, len(raw.symbols) // _SAMPLES)][:_SAMPLES]:
        try:
            samples.append(raw.read(symbol))
        except DataError:
            continue  # named when its turn comes
        if samples[0].adjustment != "auto" or "factor" not in samples[0].values:
            return settled
    return replace(settled, decided="adjusted" if shows_adjusted_prices(samples, settled) else "")


def _write_symbols(
    raw: RawSource, scratch: Path, settled: Settled, options: ImportOptions, progress: Progress | None
) -> _Tally:
    tally = _Tally(refused=raw.refused, gathering=Gathering(settled.calendar.sessions))
    for folder in ("adjusted", "quarantine"):
        (scratch / folder).mkdir()
    plan = planned(raw.symbols, options.lives)
    with Ahead(lambda name: rows_of(raw, name, plan, options.lives), plan) as read, Behind(write_bars) as write:
        for done, (name, result) in enumerate(read, start=1):
            try:
                rows, ended = result.result()
            except DataError as error:
                tally.refused[name] = str(error)
                _count_refused(tally, name)
            else:
                if len(rows.rows) or ended is None:
                    _write_symbol(scratch, rows, ended, settled, tally, write)
            if progress is not None:
                progress(done, len(plan), name)
        tally.files = write.results()
    if tally.refused:
        write_refused(scratch / "quarantine", tally.refused)
    return tally


def _write_symbol(
    scratch: Path,
    rows: RawBars,
    ended: BoolArray | None,
    settled: Settled,
    tally: _Tally,
    write: Behind[SymbolFile],
) -> None:
    result = judged(rows, settled, ended=ended)
    _refuse_mixed_adjustment(tally, result)
    tally.readings.add(rows.read_as)
    tally.rows += len(rows.rows)
    tally.dates = _with(tally.dates, rows.dates[~np.isnat(rows.dates)])
    if is_foreign(result, rows, settled.rules):
        tally.foreign.append(rows.symbol)
        result = _held(result, "other_exchange")
    tally.verdicts[result.verdict] += 1
    if len(result.sessions):
        write.put(rows.symbol, scratch / "adjusted", rows.symbol, result.sessions, result.columns, result.raw)
        tally.gathering.add(rows.symbol, result.sessions, result.columns)
        tally.has_vwap |= "vwap" in result.columns
        last = {name: values[-RECENT_BARS:].copy() for name, values in result.columns.items()}
        tally.recent.append((rows.symbol, result.sessions[-RECENT_BARS:].copy(), last))
        if result.unsettled:
            tally.unsettled[rows.symbol] = result.unsettled
    _write_quarantine(scratch / "quarantine", rows, result.flags, tally)


def _with(dates: SessionArray, more: SessionArray) -> SessionArray:
    """Return the union; most symbols have no other dates than those before them."""
    at = np.searchsorted(dates, more)
    known = len(dates) > 0 and bool((dates[np.minimum(at, len(dates) - 1)] == more).all())
    return dates if known else np.union1d(dates, more)


def _held(result: Judged, reason: str) -> Judged:
    """Return the verdict with every row held back for one more reason."""
    count = len(next(iter(result.flags.values())))
    return replace(
        result,
        sessions=result.sessions[:0],
        columns={name: values[:0] for name, values in result.columns.items()},
        flags={**result.flags, reason: np.ones(count, bool)},
        unsettled=(),
    )


def _refuse_mixed_adjustment(tally: _Tally, result: Judged) -> None:
    tally.adjustments[result.adjusted_by] += 1
    # A factor that is applied already, and no event at all, are found symbol by symbol.
    kind = {"adjusted": "factor"}.get(result.adjusted_by, result.adjusted_by)
    tally.adjusted.setdefault(kind, result.symbol)
    if len(tally.adjusted) > 1:
        listed = ", ".join(f"{symbol} by {adjustment}" for adjustment, symbol in tally.adjusted.items())
        raise DataError(f"symbols would be adjusted in different ways: {listed}")


def _refuse_too_much(tally: _Tally, settled: Settled, source: Path) -> None:
    symbols = sum(tally.verdicts.values())
    if tally.foreign and len(tally.foreign) * 2 > symbols:
        hint = foreign_hint(tally.dates, settled.calendar)
        raise DataError(f"{source}: is of another exchange than {settled.calendar.name}; {hint}")
    if not tally.files:
        reasons = ", ".join(f"{reason} {rows}" for reason, rows in tally.reasons.items())
        refused = "; ".join(list(tally.refused.values())[:3])
        sentences = "; ".join(one for one in (reasons, refused) if one)
        raise DataError(f"{source}: no row can be a bar; reasons and rows: {sentences}")
    bad, limit = sum(tally.quarantined.values()), settled.rules.max_bad
    if tally.rows and bad > limit * tally.rows:
        reasons = ", ".join(f"{reason} {rows}" for reason, rows in tally.reasons.most_common())
        raise DataError(
            f"{source}: {bad} of {tally.rows} rows are held back, limit {limit:.0%} (--limit max_bad=…); {reasons}"
        )
    if len(tally.refused) > limit * (symbols + len(tally.refused)):
        raise DataError(
            f"{source}: {len(tally.refused)} of {symbols + len(tally.refused)} files cannot be read, limit {limit:.0%} "
            f"(--limit max_bad=…); {next(iter(tally.refused.values()))}"
        )


def _count_refused(tally: _Tally, name: str) -> None:
    tally.verdicts[HELD] += 1
    tally.reasons["unreadable_file"] += 1
    tally.quarantined.setdefault(name, 0)


def _write_quarantine(folder: Path, rows: RawBars, flags: Mapping[str, BoolArray], tally: _Tally) -> None:
    if not flags:
        return
    for reason, flag in flags.items():
        tally.reasons[reason] += int(flag.sum())
    tally.quarantined[rows.symbol] = write_quarantine(folder, rows, flags)


def _manifest(
    tally: _Tally, settled: Settled, options: ImportOptions, source: Path, raw: RawSource, recent: str
) -> Manifest:
    rules = options.rules
    closes = tally.gathering.closes()
    return Manifest(
        snapshot_id=snapshot_id(settled.calendar.name, tally.files),
        run_date=settled.run_date,
        calendar=settled.calendar.name,
        adjustment=tally.adjustments.most_common(1)[0][0],
        has_vwap=tally.has_vwap,
        options={
            "columns": dict(options.columns),
            "max_move": rules.max_move,
            "range_tolerance": rules.range_tolerance,
            "confirmed_moves": sorted(f"{symbol}:{day}" for symbol, day in rules.confirmed_moves),
            "confirmed_sessions": sorted(str(day) for day in rules.confirmed_sessions),
            "splits": [f"{symbol}={day}:{ratio:g}" for symbol, day, ratio in options.splits],
        },
        quarantined=MappingProxyType({symbol: rows for symbol, rows in tally.quarantined.items() if rows}),
        files=MappingProxyType(tally.files),
        checks=run_checks(closes, rules),
        rules=row_versions(),
        limits=stated(rules),
        unsettled=MappingProxyType(tally.unsettled),
        origin={
            "source": source.name,
            "vendor": raw.vendor.name,
            "dates": sorted(tally.readings),
            "adjustments": dict(tally.adjustments),
            "refused": len(tally.refused),
            "recent_sha256": recent,
        },
        calendar_definition=settled.calendar.definition,
    )


def _seal(scratch: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file, and return when the disk has both folders."""
    write_synced(scratch / "manifest.part", encode_manifest(manifest))
    (scratch / "manifest.part").rename(scratch / "adjusted" / NAME)
    for folder in (scratch / "adjusted", scratch / "quarantine"):
        sync(folder)


def _report(tally: _Tally, manifest: Manifest, path: Path, calendar: SessionCalendar, *, created: bool) -> ImportReport:
    remark = sessions_without_bars(tally.dates, calendar)
    return ImportReport(
        path=path,
        snapshot_id=manifest.snapshot_id,
        run_date=manifest.run_date,
        created=created,
        revision=manifest.revision,
        vendor=str(manifest.origin["vendor"]),
        adjustment=manifest.adjustment,
        has_vwap=manifest.has_vwap,
        symbols=len(tally.files),
        accepted=manifest.rows,
        quarantined=sum(tally.quarantined.values()),
        reasons=MappingProxyType(tally.reasons),
        quarantined_symbols=manifest.quarantined,
        empty_symbols=tuple(symbol for symbol in tally.quarantined if symbol not in tally.files),
        verdicts=MappingProxyType(tally.verdicts),
        unsettled=manifest.unsettled,
        refused=MappingProxyType(tally.refused),
        remarks=tuple(one for one in (*sorted(tally.readings - {"dates as written"}), remark) if one),
        failed={check.name: check.detail for check in manifest.failed},
    )
