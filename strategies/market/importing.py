"""Importing: raw daily bars into a T1 snapshot.

Owns: the order of an import, the files it writes, and that they appear all at once.
Must not know: formats of vendors, rules of judgement, panels.
Invariant: every row read is either a bar of the snapshot or a row of the quarantine; a snapshot that can be seen is
complete and never changes.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.errors import DataError
from strategies.files import sync, write_synced
from strategies.market.adjustment import adjust, factor_of
from strategies.market.bars import BoolArray, FloatArray
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import (
    COLUMNS,
    NAME,
    Manifest,
    SymbolFile,
    content_sha256,
    encode_manifest,
    read_manifest,
    snapshot_id,
)
from strategies.market.quarantine import Rules, Suspects, judge, reason_texts
from strategies.market.raw_bars import NUMBERS, RawBars, RawSource, open_source
from strategies.market.snapshots import SymbolBars, adjusted_dir

#: Called after each symbol with symbols done, symbols in all, and the symbol.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How raw bars are read and judged."""

    #: Exchange calendar, a code of `exchange_calendars`.
    calendar: str = "XNYS"
    #: `adj_close`, `factor`, `none`, or `auto`: by whichever column there is.
    adjustment: str = "auto"
    #: Field to column name, where a vendor's names are not recognised.
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did."""

    path: Path
    snapshot_id: str
    run_date: date
    #: False: the run date already held this very snapshot, and nothing was written.
    created: bool
    adjustment: str
    has_vwap: bool
    symbols: int
    #: Rows that became bars, rows in quarantine.
    accepted: int
    quarantined: int
    #: Reason to rows it holds for; a row may have several.
    reasons: Mapping[str, int]
    #: Symbol to rows in quarantine, for those that have any.
    quarantined_symbols: Mapping[str, int]
    #: Symbols of which no row was accepted; the snapshot lacks them.
    empty_symbols: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been written so far."""

    files: dict[str, SymbolFile] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    adjustments: dict[str, str] = field(default_factory=dict)
    has_vwap: bool = False


def quarantine_dir(data_dir: Path) -> Path:
    """Return the folder below which quarantined rows lie, one folder a run date."""
    return data_dir / "quarantine"


def import_bars(
    source: Path,
    data_dir: Path,
    *,
    run_date: date,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write the snapshot of a run date and its quarantine, and return what was done.

    Files are written to hidden folders, synced, and renamed: quarantine first, the snapshot last. Running the same
    import again finds the same bars and changes nothing.

    Args:
        source: A folder with a CSV or Parquet file a symbol, or one file.
        data_dir: `adjusted/<run date>/` and `quarantine/<run date>/` are made below it.
        run_date: Names the snapshot; rows dated later cannot be true.
        options: How to read and judge.
        progress: Told of each symbol.

    Raises:
        DataError: The source cannot be read, holds no true row, or the run date holds other bars already.
        UnknownCalendar: The options name a calendar that does not exist.
    """
    options = options or ImportOptions()
    calendar = SessionCalendar(options.calendar)
    raw = open_source(source, options.columns, options.adjustment)
    with _exclusive(data_dir), _scratch(data_dir) as scratch:
        tally = _write_symbols(raw, scratch, calendar, run_date, options, progress)
        manifest = _manifest(tally, run_date, options, source)
        created = _publish(scratch, data_dir, manifest)
    return _report(tally, manifest, adjusted_dir(data_dir) / run_date.isoformat(), created=created)


def _write_symbols(
    raw: RawSource,
    scratch: Path,
    calendar: SessionCalendar,
    run_date: date,
    options: ImportOptions,
    progress: Progress | None,
) -> _Tally:
    tally = _Tally()
    for folder in ("adjusted", "quarantine"):
        (scratch / folder).mkdir()
    for done, symbol in enumerate(raw.symbols, start=1):
        rows = raw.read(symbol)
        _refuse_mixed_adjustment(tally, rows)
        bars, flags = _judged(rows, calendar, run_date, options.rules)
        if len(bars.sessions):
            tally.files[symbol] = _write_bars(scratch / "adjusted", bars)
            tally.has_vwap |= "vwap" in bars.columns
        _write_quarantine(scratch / "quarantine", rows, flags, tally)
        if progress is not None:
            progress(done, len(raw.symbols), symbol)
    return tally


def _refuse_mixed_adjustment(tally: _Tally, rows: RawBars) -> None:
    tally.adjustments.setdefault(rows.adjustment, rows.symbol)
    if len(tally.adjustments) > 1:
        listed = ", ".join(f"{symbol} by {adjustment}" for adjustment, symbol in tally.adjustments.items())
        raise DataError(f"symbols would be adjusted in different ways: {listed}")


def _judged(
    rows: RawBars, calendar: SessionCalendar, run_date: date, rules: Rules
) -> tuple[SymbolBars, dict[str, BoolArray]]:
    factor = factor_of(rows.values, rows.adjustment)
    adjusted = adjust(rows.values, factor)
    suspects = Suspects(symbol=rows.symbol, dates=rows.dates, raw=rows.values, adjusted=adjusted, factor=factor)
    flags = judge(suspects, calendar, run_date, rules)
    accepted = ~np.logical_or.reduce(list(flags.values())) if flags else np.ones(len(rows.dates), bool)
    # Accepted rows ascend, or descend from start to end.
    kept = np.flatnonzero(accepted)[np.argsort(rows.dates[accepted], kind="stable")]
    columns = {name: values[kept] for name, values in {**adjusted, "factor": factor}.items()}
    if "vwap" in columns and np.isnan(columns["vwap"]).all():
        del columns["vwap"]
    return SymbolBars(symbol=rows.symbol, sessions=rows.dates[kept], columns=columns), flags


def _write_bars(folder: Path, bars: SymbolBars) -> SymbolFile:
    columns: dict[str, pa.Array] = {
        "symbol": pa.array([bars.symbol] * len(bars.sessions), pa.string()),
        "date": pa.array(bars.sessions.astype("datetime64[D]"), pa.date32()),
    }
    columns |= {name: _nullable(bars.columns[name]) for name in COLUMNS if name in bars.columns}
    content = _write_table(folder / f"{bars.symbol}.parquet", columns)
    return SymbolFile(
        rows=len(bars.sessions),
        first=bars.sessions[0].astype(object),
        last=bars.sessions[-1].astype(object),
        content_sha256=content_sha256(bars.sessions, bars.columns),
        file_sha256=hashlib.sha256(content).hexdigest(),
    )


def _write_quarantine(folder: Path, rows: RawBars, flags: Mapping[str, BoolArray], tally: _Tally) -> None:
    if not flags:
        return
    for reason, flag in flags.items():
        tally.reasons[reason] = tally.reasons.get(reason, 0) + int(flag.sum())
    at = np.flatnonzero(np.logical_or.reduce(list(flags.values())))
    tally.quarantined[rows.symbol] = len(at)
    columns: dict[str, pa.Array] = {
        "symbol": pa.array([rows.symbol] * len(at), pa.string()),
        "date": pa.array(rows.dates[at].astype("datetime64[D]"), pa.date32()),
    }
    columns |= {name: _nullable(rows.values[name][at]) for name in NUMBERS if name in rows.values}
    columns |= {"row": pa.array(rows.rows[at], pa.int64()), "reason": pa.array(reason_texts(flags, at), pa.string())}
    _write_table(folder / f"{rows.symbol}.parquet", columns)


def _nullable(values: FloatArray) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _write_table(path: Path, columns: Mapping[str, pa.Array]) -> bytes:
    """Write and sync a file; return its bytes."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(dict(columns)), sink, compression="zstd", use_dictionary=["symbol"])
    content: bytes = sink.getvalue().to_pybytes()
    write_synced(path, content)
    return content


def _manifest(tally: _Tally, run_date: date, options: ImportOptions, source: Path) -> Manifest:
    if not tally.files:
        reasons = ", ".join(f"{reason} {rows}" for reason, rows in tally.reasons.items())
        raise DataError(f"{source}: no row can be a bar; reasons and rows: {reasons}")
    rules = options.rules
    return Manifest(
        snapshot_id=snapshot_id(options.calendar, tally.files),
        run_date=run_date,
        calendar=options.calendar,
        adjustment=next(iter(tally.adjustments)),
        has_vwap=tally.has_vwap,
        options={
            "columns": dict(options.columns),
            "max_move": rules.max_move,
            "range_tolerance": rules.range_tolerance,
            "confirmed_moves": sorted(f"{symbol}:{day}" for symbol, day in rules.confirmed_moves),
        },
        quarantined=MappingProxyType(tally.quarantined),
        files=MappingProxyType(tally.files),
    )


def _publish(scratch: Path, data_dir: Path, manifest: Manifest) -> bool:
    """Rename the finished folders into place; return whether that was needed."""
    day = manifest.run_date.isoformat()
    target, quarantine = adjusted_dir(data_dir) / day, quarantine_dir(data_dir) / day
    if target.exists():
        _refuse_other_content(target, manifest)
        return False
    write_synced(scratch / "manifest.part", encode_manifest(manifest))
    (scratch / "manifest.part").rename(scratch / "adjusted" / NAME)
    for folder in (scratch / "adjusted", scratch / "quarantine"):
        sync(folder)
    for parent in (target.parent, quarantine.parent):
        parent.mkdir(exist_ok=True)
    if quarantine.exists():
        # Without its snapshot it was left by an import that died between the two renames.
        quarantine.rename(scratch / "abandoned")
    (scratch / "quarantine").rename(quarantine)
    sync(quarantine.parent)
    (scratch / "adjusted").rename(target)
    sync(target.parent)
    return True


def _refuse_other_content(target: Path, manifest: Manifest) -> None:
    if not (target / NAME).is_file():
        raise DataError(f"{target}: exists without a manifest, so it is no snapshot of this command; move it away")
    found = read_manifest(target)
    if found.snapshot_id != manifest.snapshot_id:
        raise DataError(
            f"{target}: holds snapshot {found.snapshot_id[:12]}, this import makes {manifest.snapshot_id[:12]}; "
            "a snapshot never changes, choose another run date"
        )


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[None]:
    """Keep a second import out of the same data directory."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / ".import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{data_dir}: another import is running") from error
        yield


@contextmanager
def _scratch(data_dir: Path) -> Iterator[Path]:
    """Give a hidden folder on the same file system; remove it, and what dead imports left, at the end."""
    scratch = Path(mkdtemp(prefix=".import-", dir=data_dir))
    try:
        yield scratch
    finally:
        for left in data_dir.glob(".import-*"):
            shutil.rmtree(left, ignore_errors=True)


def _report(tally: _Tally, manifest: Manifest, path: Path, *, created: bool) -> ImportReport:
    return ImportReport(
        path=path,
        snapshot_id=manifest.snapshot_id,
        run_date=manifest.run_date,
        created=created,
        adjustment=manifest.adjustment,
        has_vwap=manifest.has_vwap,
        symbols=len(tally.files),
        accepted=manifest.rows,
        quarantined=sum(tally.quarantined.values()),
        reasons=MappingProxyType(tally.reasons),
        quarantined_symbols=MappingProxyType(tally.quarantined),
        empty_symbols=tuple(symbol for symbol in tally.quarantined if symbol not in tally.files),
    )
