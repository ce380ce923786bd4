"""Tables: a vendor's file as named columns, whatever its format.

Owns: CSV in its dialects, Parquet, headings of several lines, limits of size.
Must not know: which column is which field, symbols, dates.
Invariant: each line of a file is a row of the table or a torn row; a file that cannot be read is a `DataError` with
its name.
"""

import csv as lines
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from strategies.errors import DataError
from strategies.market.bars import IntArray
from strategies.market.cells import BLANKS
from strategies.market.columns import is_heading

#: Endings that are read; other files in a folder are left alone.
ENDINGS = (".csv", ".csv.gz", ".txt", ".txt.gz", ".parquet")
#: Bytes in which the heading must be.
HEAD_BYTES = 1 << 16
#: Lines that may be before the heading.
MAX_PREAMBLE = 10
DELIMITERS = (",", ";", "\t", "|")
#: Rows of a Parquet file from which its columns are read one by one, as they are used.
LONG = 1_000_000
#: Most torn rows of one file that are kept as text.
MAX_TORN = 1000
#: Chooses, from all names, those to read: name to whether it holds numbers.
Chooser = Callable[[Sequence[str]], Mapping[str, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of one file that were chosen."""

    #: Every name of the heading.
    names: tuple[str, ...]
    #: Type of each chosen column; texts where the file has texts that are no plain numbers.
    types: Mapping[str, pa.DataType]
    #: Chosen columns by name, less those that are read when they are asked for.
    columns: dict[str, pa.ChunkedArray]
    #: Number of each row in its file, the first one after the heading is 1, `[rows]`.
    rows: IntArray
    #: Rows with more or fewer cells than the heading: row number to its text.
    torn: Mapping[int, str]
    delimiter: str
    #: Reads a column of a long file; None: all of them are in `columns`.
    read: Callable[[str], pa.ChunkedArray] | None = None

    def column(self, name: str, *, last: bool = False) -> pa.ChunkedArray:
        """Return a chosen column, and drop it where this is its last use.

        Raises:
            DataError: It cannot be read.
        """
        if name not in self.columns and self.read is not None:
            found = self.read(name)
            if not last:
                self.columns[name] = found
            return found
        return self.columns.pop(name) if last else self.columns[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heading:
    names: tuple[str, ...]
    #: Lines up to the first row.
    lines: int
    delimiter: str
    encoding: str


def ending_of(name: str) -> str | None:
    """Return the longest ending of a file's name that is read."""
    found = [ending for ending in ENDINGS if name.lower().endswith(ending)]
    return max(found, key=len) if found else None


def read_table(path: Path, choose: Chooser, limit: int) -> Table:
    """Return the chosen columns of a file.

    Args:
        path: A file with one of `ENDINGS`.
        choose: Given every name, returns those to read and whether each holds numbers.
        limit: Most rows.

    Raises:
        DataError: The file cannot be read, has no rows, or too many.
    """
    ending = ending_of(path.name)
    if ending is None:
        raise DataError(f"{path.name}: ends in none of {', '.join(ENDINGS)}")
    read = _read_parquet if ending == ".parquet" else _read_csv
    try:
        table = read(path, choose, limit)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    if not len(table.rows) and not table.torn:
        raise DataError(f"{path.name}: has no rows")
    return table


def heading_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's heading.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        if ending_of(path.name) == ".parquet":
            with parquet.ParquetFile(path) as file:
                return tuple(_flat_name(name) for name in file.schema_arrow.names)
        return _heading(path).names
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    sentence = (str(error).splitlines() or ["no reason given"])[0][:200]
    return DataError(f"{path.name}: cannot be read: {sentence}")


def _read_parquet(path: Path, choose: Chooser, limit: int) -> Table:
    with parquet.ParquetFile(path) as file:
        _refuse_long(file.metadata.num_rows, limit, path)
        stored = {_flat_name(name): name for name in file.schema_arrow.names}
        chosen = choose(tuple(stored))
        count = file.metadata.num_rows
        types = {name: file.schema_arrow.field(stored[name]).type for name in chosen}
        long = count > LONG
        table = None if long else file.read(columns=[stored[name] for name in chosen], use_threads=False)

    def read(name: str) -> pa.ChunkedArray:
        texts = [stored[name]] if types[name] in {pa.string(), pa.large_string()} else []
        try:
            with parquet.ParquetFile(path, read_dictionary=texts) as again:
                return again.read(columns=[stored[name]], use_threads=False)[stored[name]]
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    return Table(
        names=tuple(stored),
        types=types,
        columns={} if table is None else {name: table[stored[name]] for name in chosen},
        rows=np.arange(1, count + 1),
        torn={},
        delimiter=",",
        read=read if long else None,
    )


def _flat_name(name: str) -> str:
    """Return `Close|AAPL` for `('Close', 'AAPL')`, as pandas names columns of two levels."""
    if name.startswith("('") and name.endswith("')"):
        return "|".join(part.strip().strip("'") for part in name[1:-1].split(","))
    return name


def _read_csv(path: Path, choose: Chooser, limit: int) -> Table:
    heading = _heading(path)
    chosen = choose(heading.names)
    try:
        return _parsed(
            path, heading, {name: pa.float64() if number else pa.string() for name, number in chosen.items()}, limit
        )
    except pa.ArrowInvalid:
        # At least one cell is no plain number or no UTF-8: read all of them as they are, and judge each.
        return _parsed(path, heading, dict.fromkeys(chosen, pa.binary()), limit)


def _parsed(path: Path, heading: _Heading, types: Mapping[str, pa.DataType], limit: int) -> Table:
    torn: list[tuple[int | None, str]] = []

    def tear(row: csv.InvalidRow) -> str:
        if len(torn) < MAX_TORN:
            torn.append((row.number, row.text))
        return "skip"

    read = csv.ReadOptions(
        column_names=list(heading.names), skip_rows=heading.lines, use_threads=False, encoding=heading.encoding
    )
    parse = csv.ParseOptions(delimiter=heading.delimiter, invalid_row_handler=tear)
    convert = csv.ConvertOptions(
        column_types=dict(types), include_columns=list(types), null_values=BLANKS, strings_can_be_null=False
    )
    batches: list[pa.RecordBatch] = []
    try:
        with csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                batches.append(batch)
                # Counted while reading: a small compressed file may unfold into any number of rows.
                _refuse_long(sum(len(one) for one in batches), limit, path)
            table = pa.Table.from_batches(batches, reader.schema)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise
        table = pa.schema(list(types.items())).empty_table()
    columns = {name: _text(table[name]) if pa.types.is_binary(types[name]) else table[name] for name in types}
    return _numbered(heading, columns, len(table), torn)


def _numbered(
    heading: _Heading, columns: dict[str, pa.ChunkedArray], count: int, torn: Sequence[tuple[int | None, str]]
) -> Table:
    # Arrow counts lines from the first one of the file.
    at = [int(number) - heading.lines for number, _ in torn if number is not None]
    numbers = np.setdiff1d(np.arange(1, count + len(torn) + 1), np.array(at, dtype=np.int64))[:count]
    return Table(
        names=heading.names,
        types={name: column.type for name, column in columns.items()},
        columns=columns,
        rows=numbers.astype(np.int64),
        torn={row: text for row, (_, text) in zip(at, torn, strict=False)},
        delimiter=heading.delimiter,
    )


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        return pa.chunked_array(
            [[None if one is None else one.decode(errors="replace") for one in column.to_pylist()]], pa.string()
        )


def _heading(path: Path) -> _Heading:
    """Return where the rows of a file begin and what its columns are called."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.strip():
        raise ValueError("Empty CSV file")
    encoding = "utf-16" if head[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf8"
    text = head.decode("utf-16" if encoding == "utf-16" else "utf-8-sig", errors="replace").splitlines()
    if not text:
        raise ValueError("Empty CSV file")
    for at, line in enumerate(text[:MAX_PREAMBLE]):
        delimiter = max(DELIMITERS, key=line.count)
        names = _cells(line, delimiter)
        nested = _nested(text, at, delimiter)
        if nested is not None:
            return _Heading(names=nested[0], lines=at + nested[1], delimiter=delimiter, encoding=encoding)
        if is_heading(names):
            return _Heading(names=_unique(names), lines=at + 1, delimiter=delimiter, encoding=encoding)
    delimiter = max(DELIMITERS, key=text[0].count)
    return _Heading(names=_unique(_cells(text[0], delimiter)), lines=1, delimiter=delimiter, encoding=encoding)


def _nested(text: Sequence[str], at: int, delimiter: str) -> tuple[tuple[str, ...], int] | None:
    """Return `Close|AAPL` and so on, and the lines, of a heading with a line of fields and a line of tickers."""
    if len(text) < at + 3:
        return None
    first, second, third = (_cells(text[at + line], delimiter) for line in range(3))
    corner = (first[0].lower(), second[0].lower())
    if corner not in {
        ("price", "ticker"),
        ("ticker", "price"),
        ("", ""),
        ("attributes", "symbols"),
        ("symbols", "attributes"),
    }:
        return None
    if len(first) < 2 or len(first) != len(second) or not all(first[1:]) or not all(second[1:]):  # noqa: PLR2004 - a date and a field
        return None
    fields_first = is_heading(["date", *first[1:]], partly=True)
    pairs = zip(first[1:], second[1:], strict=True)
    names = ("Date", *(f"{one}|{other}" if fields_first else f"{other}|{one}" for one, other in pairs))
    return names, 3 if third[0].lower() in {"date", "datetime"} and not any(third[1:]) else 2


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(lines.reader([line], delimiter=delimiter), [""])] or [""]


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with a number behind those without one, so that every column has a name."""
    return tuple(name or f"column {at}" for at, name in enumerate(names, start=1))


def _refuse_long(rows: int, limit: int, path: Path) -> None:
    if rows > limit:
        raise DataError(f"{path.name}: has {rows} rows or more, at most {limit} are read")
