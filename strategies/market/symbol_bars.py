"""Bars of one symbol: its file in a snapshot, and what was appended to it.

Owns: reading a symbol's Parquet file, joining it with the parts, comparing both with the manifest.
Must not know: which snapshots there are, panels.
Invariant: what is read has the bytes and the bars that the manifest states.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.errors import DataError
from strategies.market.adjustment import PRICES
from strategies.market.bars import FloatArray, SessionArray
from strategies.market.manifest import COLUMNS, OPTIONAL_COLUMNS, RAW, RAW_PREFIX, Manifest, SymbolFile, content_sha256
from strategies.market.parts import read_part
from strategies.market.symbols import file_stem


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolBars:
    """One symbol's bars."""

    symbol: str
    #: Ascending, `[bars]`.
    sessions: SessionArray
    #: Column to adjusted values `[bars]`; always the five of `FIELDS` and `factor`; vwap where known.
    columns: dict[str, FloatArray]
    #: Field to values as the vendor wrote them `[bars]`, and its columns of corporate actions, where they were asked
    #: for and differ from `columns`.
    raw: dict[str, FloatArray] = field(default_factory=dict)

    def as_paid(self) -> dict[str, FloatArray]:
        """Return prices, vwap and volume before adjustment: as they came, else what the factor makes of them."""
        factor = self.columns["factor"]
        paid = {name: self.columns[name] / factor for name in (*PRICES, "vwap") if name in self.columns}
        paid["volume"] = self.columns["volume"] * factor
        return {name: self.raw.get(name, values) for name, values in paid.items()}


def read_bars(folder: Path, manifest: Manifest, symbol: str, *, verify: bool = True, raw: bool = False) -> SymbolBars:
    """Return the bars of a symbol that the manifest names, with those that the vendor wrote if asked.

    Raises:
        DataError: A file is absent, truncated, or not what the manifest states.
    """
    stated = manifest.files[symbol]
    own = _read_own(folder, stated, symbol, verify=verify, raw=raw) if stated.own_rows else None
    if own is not None and stated.own_rows == stated.rows:
        return own
    pieces = [read_part(folder, part).of(symbol) for part in manifest.parts]
    return _with_parts(symbol, own, pieces, stated, folder)


def _read_own(folder: Path, stated: SymbolFile, symbol: str, *, verify: bool, raw: bool) -> SymbolBars:
    path = folder / f"{file_stem(symbol)}.parquet"
    try:
        content = path.read_bytes()
        if verify and hashlib.sha256(content).hexdigest() != stated.file_sha256:
            raise DataError(f"{path}: its bytes are not those the manifest states ({len(content)} bytes)")
        with parquet.ParquetFile(pa.BufferReader(content)) as file:
            names = [name for name in file.schema_arrow.names if raw or not name.startswith(RAW_PREFIX)]
            table = file.read(columns=names, use_threads=False)
        bars = _bars(symbol, table)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {(str(error).splitlines() or ['?'])[0][:200]}") from error
    _refuse_other_bars(bars, stated, path, verify=verify)
    return bars


def _with_parts(
    symbol: str,
    own: SymbolBars | None,
    pieces: Sequence[tuple[SessionArray, dict[str, FloatArray]]],
    stated: SymbolFile,
    folder: Path,
) -> SymbolBars:
    """Return a symbol's own bars followed by those of the parts that are later."""
    bars = own
    for sessions, columns in pieces:
        later = sessions > bars.sessions[-1] if bars is not None else np.ones(len(sessions), bool)
        if not later.any():
            continue
        kept = {name: values[later] for name, values in columns.items() if not np.isnan(values[later]).all()}
        bars = _followed(symbol, bars, sessions[later], kept)
    if bars is None or len(bars.sessions) != stated.rows or bars.sessions[-1].astype(object) != stated.last:
        raise DataError(f"{folder}: the parts do not hold the {stated.rows} bars of {symbol} that the manifest states")
    return bars


def _followed(
    symbol: str, bars: SymbolBars | None, sessions: SessionArray, columns: Mapping[str, FloatArray]
) -> SymbolBars:
    if bars is None:
        return SymbolBars(symbol=symbol, sessions=sessions, columns=dict(columns))
    count, more = len(bars.sessions), len(sessions)
    names = [name for name in COLUMNS if name in bars.columns or name in columns]
    added = SymbolBars(symbol=symbol, sessions=sessions, columns=dict(columns)).as_paid()
    return SymbolBars(
        symbol=symbol,
        sessions=np.concatenate((bars.sessions, sessions)),
        raw={
            name: np.concatenate((values, added.get(name, np.full(more, np.nan)))) for name, values in bars.raw.items()
        },
        columns={
            name: np.concatenate(
                (bars.columns.get(name, np.full(count, np.nan)), columns.get(name, np.full(more, np.nan)))
            )
            for name in names
        },
    )


def _bars(symbol: str, table: pa.Table) -> SymbolBars:
    sessions = table["date"].cast(pa.date32()).to_numpy().astype("datetime64[D]")
    names = [name for name in COLUMNS if name in table.column_names or name not in OPTIONAL_COLUMNS]
    raw = {name: _column(table, RAW_PREFIX + name) for name in RAW if RAW_PREFIX + name in table.column_names}
    return SymbolBars(symbol=symbol, sessions=sessions, columns={name: _column(table, name) for name in names}, raw=raw)


def _column(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table[name].cast(pa.float64()).to_numpy()
    return values


def _refuse_other_bars(bars: SymbolBars, stated: SymbolFile, path: Path, *, verify: bool) -> None:
    sessions = bars.sessions
    if len(sessions) != stated.own_rows or not len(sessions):
        raise DataError(f"{path}: has {len(sessions)} rows, the manifest states {stated.own_rows}")
    if np.isnat(sessions).any() or not (np.diff(sessions) > np.timedelta64(0, "D")).all():
        raise DataError(f"{path}: its dates do not ascend")
    whole = stated.file_rows is None
    last = sessions[-1].astype(object)
    if sessions[0].astype(object) != stated.first or (last != stated.last if whole else last > stated.last):
        raise DataError(f"{path}: runs {sessions[0]} to {sessions[-1]}, manifest: {stated.first} to {stated.last}")
    if verify and whole and content_sha256(sessions, bars.columns) != stated.content_sha256:
        raise DataError(f"{path}: its bars are not those the manifest states")
