"""Raw bars: a vendor's CSV and Parquet files, read as they are.

Owns: formats, limits of size, text into numbers and dates; a folder with a file a symbol, or one table of many.
Must not know: which rows are true, adjustment, snapshots.
Invariant: what cannot be read as numbers and dates is a `DataError` with the file's name; no row is lost or changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from strategies.errors import DataError
from strategies.market.bars import FloatArray, IntArray, SessionArray
from strategies.market.columns import adjustment_of, find_columns
from strategies.market.symbols import checked_symbol

#: Endings that are read; other files in a folder are left alone.
ENDINGS = (".csv", ".csv.gz", ".parquet")
#: Largest file, in bytes.
MAX_BYTES = 4 * 1024**3
#: Most rows of one table, and of one symbol's file (four centuries of days).
MAX_TABLE_ROWS = 50_000_000
MAX_SYMBOL_ROWS = 100_000
#: Text that means "no value" in a number or a date; never in a symbol, where `NA` is a name.
BLANKS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "NaT")
#: Fields read as numbers.
NUMBERS = ("open", "high", "low", "close", "volume", "vwap", "adj_close", "factor")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBars:
    """One symbol's rows as the vendor wrote them."""

    symbol: str
    #: The row's date as written, `[rows]`; NaT where there is none.
    dates: SessionArray
    #: Field to values `[rows]`; NaN where there is none; never infinite.
    values: Mapping[str, FloatArray]
    #: Number of each row in its file, the first one after the heading is 1, `[rows]`.
    rows: IntArray
    #: What prices are adjusted by: `adj_close`, `factor` or `none`.
    adjustment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSource:
    """A folder of files or one table, by symbol."""

    #: Ascending.
    symbols: tuple[str, ...]
    files: Mapping[str, Path]
    tables: Mapping[str, RawBars]
    chosen: Mapping[str, str]
    adjustment: str

    def read(self, symbol: str) -> RawBars:
        """Return the rows of one symbol.

        Raises:
            DataError: Its file cannot be read.
        """
        if symbol in self.tables:
            return self.tables[symbol]
        return _read_symbol_file(self.files[symbol], symbol, self.chosen, self.adjustment)


def open_source(path: Path, chosen: Mapping[str, str], adjustment: str) -> RawSource:
    """Return the raw bars under a path: a folder with a file a symbol, or one file.

    Args:
        path: Folder or file; in a folder the file's name is the symbol, in a table a column says it.
        chosen: Field to column name, where the aliases do not do.
        adjustment: `auto`, `adj_close`, `factor` or `none`.

    Raises:
        DataError: Nothing readable is there.
    """
    if path.is_dir():
        files = _symbol_files(path)
        tables: dict[str, RawBars] = {}
    elif path.is_file():
        files, tables = {}, _read_table_file(path, chosen, adjustment)
    else:
        raise DataError(f"{path}: no such file or folder")
    symbols = tuple(sorted(files or tables))
    return RawSource(symbols=symbols, files=files, tables=tables, chosen=chosen, adjustment=adjustment)


def _symbol_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = _ending(path)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        symbol = checked_symbol(path.name[: -len(ending)], path.name)
        if symbol in files:
            raise DataError(f"{folder}: {files[symbol].name} and {path.name} are both symbol {symbol}")
        files[symbol] = path
    if not files:
        raise DataError(f"{folder}: holds no {', '.join(ENDINGS)} file")
    return files


def _ending(path: Path) -> str | None:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def _read_symbol_file(path: Path, symbol: str, chosen: Mapping[str, str], asked: str) -> RawBars:
    table, columns = _read(path, chosen, MAX_SYMBOL_ROWS)
    if "symbol" in columns:
        _refuse_other_symbols(table, columns["symbol"], symbol, path)
    return RawBars(
        symbol=symbol,
        dates=_dates(table[columns["date"]], path),
        values=_numbers(table, columns, path),
        rows=np.arange(1, len(table) + 1),
        adjustment=adjustment_of(columns, asked, path.name),
    )


def _read_table_file(path: Path, chosen: Mapping[str, str], asked: str) -> dict[str, RawBars]:
    table, columns = _read(path, chosen, MAX_TABLE_ROWS)
    if "symbol" not in columns:
        ending = _ending(path) or ""
        symbol = checked_symbol(path.name[: -len(ending)], path.name)
        return {symbol: _read_symbol_file(path, symbol, chosen, asked)}
    adjustment = adjustment_of(columns, asked, path.name)
    dates, values = _dates(table[columns["date"]], path), _numbers(table, columns, path)
    return {
        symbol: RawBars(
            symbol=symbol,
            dates=dates[rows],
            values={name: column[rows] for name, column in values.items()},
            rows=rows + 1,
            adjustment=adjustment,
        )
        for symbol, rows in _rows_by_symbol(table[columns["symbol"]], path).items()
    }


def _rows_by_symbol(column: pa.ChunkedArray, path: Path) -> dict[str, IntArray]:
    encoded = _symbol_text(column, path).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    # A stable sort keeps each symbol's rows in the order of the file, which is evidence.
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(encoded.dictionary) + 1))
    rows: dict[str, IntArray] = {}
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        symbol = checked_symbol(text, path.name)
        if symbol in rows:
            raise DataError(f"{path.name}: symbol {symbol} is written in two ways, one of them {text!r}")
        rows[symbol] = order[bounds[code] : bounds[code + 1]]
        _refuse_long(len(rows[symbol]), MAX_SYMBOL_ROWS, path)
    return rows


def _refuse_other_symbols(table: pa.Table, column: str, symbol: str, path: Path) -> None:
    for text in _symbol_text(table[column], path).unique().to_pylist():
        if text.upper() != symbol:
            raise DataError(f"{path.name}: holds rows of {text[:40]!r}, its name says {symbol}")


def _symbol_text(column: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    if column.null_count:
        row = pc.index(column.is_null(), value=True).as_py() + 1
        raise DataError(f"{path.name}: row {row} has no symbol")
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"{path.name}: symbols are {column.type}, expected text") from error


def _read(path: Path, chosen: Mapping[str, str], limit: int) -> tuple[pa.Table, dict[str, str]]:
    """Return the columns that matter, with field to column name."""
    ending = _ending(path)
    if ending is None:
        raise DataError(f"{path.name}: ends in none of {', '.join(ENDINGS)}")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
    read = _read_parquet if ending == ".parquet" else _read_csv
    try:
        table, columns = read(path, chosen, limit)
    except (pa.ArrowException, OSError, ValueError) as error:
        sentence = (str(error).splitlines() or ["no reason given"])[0][:200]
        raise DataError(f"{path.name}: cannot be read: {sentence}") from error
    if not len(table):
        raise DataError(f"{path.name}: has no rows")
    return table, columns


def _read_csv(path: Path, chosen: Mapping[str, str], limit: int) -> tuple[pa.Table, dict[str, str]]:
    with csv.open_csv(path, read_options=csv.ReadOptions(block_size=1 << 16)) as heading:
        columns = find_columns(heading.schema.names, chosen, path.name)
    numbers = {columns[field]: pa.float64() for field in NUMBERS if field in columns}
    text = {columns[field]: pa.string() for field in ("symbol", "date") if field in columns}
    convert = csv.ConvertOptions(
        column_types=numbers | text, include_columns=list(columns.values()), null_values=BLANKS
    )
    batches: list[pa.RecordBatch] = []
    with csv.open_csv(path, convert_options=convert) as reader:
        for batch in reader:
            batches.append(batch)
            # Counted while reading: a small compressed file may unfold into any number of rows.
            _refuse_long(sum(len(one) for one in batches), limit, path)
        return pa.Table.from_batches(batches, reader.schema), columns


def _read_parquet(path: Path, chosen: Mapping[str, str], limit: int) -> tuple[pa.Table, dict[str, str]]:
    with parquet.ParquetFile(path) as file:
        _refuse_long(file.metadata.num_rows, limit, path)
        columns = find_columns(file.schema_arrow.names, chosen, path.name)
        return file.read(columns=list(columns.values()), use_threads=False), columns


def _refuse_long(rows: int, limit: int, path: Path) -> None:
    if rows > limit:
        raise DataError(f"{path.name}: has {rows} rows or more, at most {limit} are read")


def _numbers(table: pa.Table, columns: Mapping[str, str], path: Path) -> dict[str, FloatArray]:
    return {field: _number(table[columns[field]], columns[field], path) for field in NUMBERS if field in columns}


def _number(column: pa.ChunkedArray, name: str, path: Path) -> FloatArray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{path.name}: column {name} holds {kind}, expected numbers")
    try:
        values: FloatArray = column.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"{path.name}: column {name}: {str(error)[:200]}") from error
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise DataError(f"{path.name}: column {name} is infinite in row {infinite[0] + 1}")
    return values


def _dates(column: pa.ChunkedArray, path: Path) -> SessionArray:
    """Return the calendar date of each row as it is written; a time of day and its zone are left aside."""
    try:
        dates: SessionArray = _date_column(column).cast(pa.date32()).to_numpy().astype("datetime64[D]")
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path.name}: dates must be YYYY-MM-DD or timestamps: {str(error)[:160]}") from error
    return dates


def _date_column(column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - pyarrow has no types
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pc.local_timestamp(column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column
    written = column.cast(pa.string())
    blank = pc.is_in(written, value_set=pa.array(BLANKS))
    text = pc.if_else(blank, pa.scalar(None, pa.string()), written)
    compact = pc.replace_substring_regex(text, r"^(\d{4})(\d{2})(\d{2})$", r"\1-\2-\3")
    whole = pc.match_substring_regex(compact, r"^\d{4}-\d{2}-\d{2}([T ][0-9:.,+\-Z ]*)?$")
    if pc.any(pc.invert(whole)).as_py():
        row = pc.index(whole, value=False).as_py()
        raise ValueError(f"row {row + 1} has {text[row].as_py()[:40]!r}")
    return pc.utf8_slice_codeunits(compact, 0, 10)
