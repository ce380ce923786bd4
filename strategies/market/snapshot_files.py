"""Files of a snapshot: a symbol's bars, its rows in quarantine, what was refused as a whole.

Owns: the columns of these files.
Must not know: which rows are true, folders, manifests.
Invariant: a file is on disk before its function returns.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.errors import DataError
from strategies.files import write_synced
from strategies.market.bars import BoolArray, FloatArray, SessionArray
from strategies.market.manifest import COLUMNS, RAW, RAW_PREFIX, SymbolFile, content_sha256
from strategies.market.quarantine import reason_texts
from strategies.market.raw_bars import NUMBERS, RawBars
from strategies.market.symbols import file_stem

#: Name of the quarantine's table of files and rows without a symbol; no symbol's file is in lower case.
REFUSED = "refused.parquet"


def write_bars(
    folder: Path,
    symbol: str,
    sessions: SessionArray,
    columns: Mapping[str, FloatArray],
    raw: Mapping[str, FloatArray] = MappingProxyType({}),
) -> SymbolFile:
    """Write a symbol's bars, and those that the vendor wrote, and return what a manifest states of them."""
    table: dict[str, pa.Array] = {
        "symbol": pa.array([symbol] * len(sessions), pa.string()),
        "date": pa.array(sessions.astype("datetime64[D]"), pa.date32()),
    }
    table |= {name: _nullable(columns[name]) for name in COLUMNS if name in columns}
    table |= {RAW_PREFIX + name: _nullable(raw[name]) for name in RAW if name in raw}
    content = _write_table(folder / f"{file_stem(symbol)}.parquet", table)
    return SymbolFile(
        rows=len(sessions),
        first=sessions[0].astype(object),
        last=sessions[-1].astype(object),
        content_sha256=content_sha256(sessions, columns),
        file_sha256=hashlib.sha256(content).hexdigest(),
    )


def write_quarantine(folder: Path, rows: RawBars, flags: Mapping[str, BoolArray]) -> int:
    """Write the rows of a symbol that have a reason, and return how many they are."""
    at = np.flatnonzero(np.logical_or.reduce(list(flags.values())))
    cells = [rows.unreadable.get(int(row), (None, None)) for row in at]
    table: dict[str, pa.Array] = {
        "symbol": pa.array([rows.symbol] * len(at), pa.string()),
        "date": pa.array(rows.dates[at].astype("datetime64[D]"), pa.date32()),
    }
    table |= {name: _nullable(rows.values[name][at]) for name in NUMBERS if name in rows.values}
    table |= {
        "row": pa.array(rows.rows[at], pa.int64()),
        "reason": pa.array(reason_texts(flags, at), pa.string()),
        "file": pa.array([rows.file_of(int(row)) for row in at], pa.string()),
        "column": pa.array([column for column, _ in cells], pa.string()),
        "value": pa.array([value and value[:200] for _, value in cells], pa.string()),
    }
    _write_table(folder / f"{file_stem(rows.symbol)}.parquet", table)
    return len(at)


def write_refused(folder: Path, refused: Mapping[str, str]) -> None:
    """Write which files and rows without a symbol were refused, and why."""
    count = len(refused)
    table = {
        "symbol": pa.nulls(count, pa.string()),
        "date": pa.nulls(count, pa.date32()),
        "row": pa.nulls(count, pa.int64()),
        "reason": pa.array(["unreadable_file"] * count, pa.string()),
        "file": pa.array(list(refused), pa.string()),
        "column": pa.nulls(count, pa.string()),
        "value": pa.array([reason[:500] for reason in refused.values()], pa.string()),
    }
    _write_table(folder / REFUSED, table)


def read_quarantine(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a snapshot's quarantine by symbol and date: symbol, date, reason, file, row, column, value.

    Raises:
        DataError: A file cannot be read.
    """
    wanted = ["symbol", "date", "reason", "file", "row", "column", "value"]
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                names = [name for name in wanted if name in file.schema_arrow.names]
                table = file.read(columns=names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read: {(str(error).splitlines() or ['?'])[0][:200]}") from error
        rows += [dict.fromkeys(wanted) | row for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["symbol"] or "", str(row["date"] or ""), row["row"] or 0))


def _nullable(values: FloatArray) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _write_table(path: Path, columns: Mapping[str, pa.Array]) -> bytes:
    """Write and sync a file; return its bytes."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(dict(columns)), sink, compression="zstd", use_dictionary=["symbol"])
    content: bytes = sink.getvalue().to_pybytes()
    write_synced(path, content)
    return content
