"""Readers: one file's table with the meaning of its columns, as rows of bars.

Owns: `RawBars`, the way from a table's cells to them.
Must not know: folders, which file holds which symbol, adjustment, which rows are true.
Invariant: a cell that cannot be read is named with its column and its text; it costs its row alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from strategies.errors import DataError
from strategies.market.bars import BoolArray, FloatArray, IntArray, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.cells import BLANKS, decimal_sign, read_numbers, unreadable
from strategies.market.columns import NUMBERS, adjustment_of, find_columns
from strategies.market.symbols import checked_symbol
from strategies.market.tables import Table, read_table
from strategies.market.times import Times, read_texts
from strategies.market.times import read_numbers as read_day_numbers
from strategies.market.vendors import OTHER, Vendor

#: Rows whose prices decide which sign is the decimal one.
DECIMAL_ROWS = 2000
#: Texts of a flag that mean yes, and of a trading status that mean no.
_YES = ("1", "1.0", "true", "t", "yes", "y", "halted", "suspended", "h")
_NO = ("0", "0.0", "false", "f", "no", "n", "suspended", "halted")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBars:
    """One symbol's rows as the vendor wrote them."""

    symbol: str
    #: The session that each row's date means, `[rows]`; NaT where there is none.
    dates: SessionArray
    #: Field to values `[rows]`; NaN where there is none; never infinite.
    values: Mapping[str, FloatArray]
    #: Number of each row in its file, the first one after the heading is 1, `[rows]`.
    rows: IntArray
    #: What prices are adjusted by, one of `ADJUSTMENTS`; `auto`: the values must decide.
    adjustment: str
    #: Whether the vendor says that the symbol did not trade, `[rows]`; None: it says nothing.
    halted: BoolArray | None = None
    #: Name of the file.
    file: str = ""
    #: Where the rows are of several files: their names, and which one each row is of, `[rows]`.
    files: tuple[tuple[str, ...], NDArray[np.int32]] | None = None
    #: Position of a row to the column and the text that could not be read.
    unreadable: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    vendor: str = OTHER.name
    #: How the dates were read.
    read_as: str = "dates as written"

    @property
    def file_names(self) -> tuple[str, ...]:
        """Return the names of all files that the rows are of."""
        return (self.file,) if self.files is None else self.files[0]

    def file_of(self, row: int) -> str:
        """Return the name of a row's file."""
        return self.file if self.files is None else self.files[0][self.files[1][row]]

    def marked(self) -> BoolArray | None:
        """Return which rows have a cell that could not be read, `[rows]`; None: none has."""
        if not self.unreadable:
            return None
        marked = np.zeros(len(self.rows), bool)
        marked[list(self.unreadable)] = True
        return marked

    def taken(
        self, at: IntArray | NDArray[np.int32] | slice, marked: BoolArray | None = None, *, symbol: str | None = None
    ) -> "RawBars":
        """Return these rows, in this order.

        Args:
            at: Positions of the rows.
            marked: What `marked` returns, where many parts are taken.
            symbol: Whose they are; None: of the same symbol.
        """
        marked = self.marked() if marked is None else marked
        cells: dict[int, tuple[str, str]] = {}
        if marked is not None:
            every = np.arange(at.start, at.stop) if isinstance(at, slice) else at
            cells = {place: self.unreadable[int(every[place])] for place in np.flatnonzero(marked[at]).tolist()}
        return RawBars(  # `replace` takes as long as all the rest, and there may be thousands of symbols
            symbol=self.symbol if symbol is None else symbol,
            dates=self.dates[at],
            values={name: values[at] for name, values in self.values.items()},
            rows=self.rows[at],
            adjustment=self.adjustment,
            halted=None if self.halted is None else self.halted[at],
            file=self.file,
            files=None if self.files is None else (self.files[0], self.files[1][at]),
            unreadable=cells,
            vendor=self.vendor,
            read_as=self.read_as,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the files of a source are read."""

    chosen: Mapping[str, str]
    #: One of `ADJUSTMENTS`.
    adjustment: str
    #: Whose zone instants are converted to.
    calendar: SessionCalendar
    vendor: Vendor = OTHER


class Reader:
    """One file's table.

    Args:
        path: The file.
        reading: How its columns are understood.
        limit: Most rows.

    Raises:
        DataError: It cannot be read, or lacks a column.
    """

    def __init__(self, path: Path, reading: Reading, limit: int) -> None:
        self.path, self._reading = path, reading
        #: Field to column; of a frame of several tickers, those of its first one.
        self.columns: dict[str, str] = {}
        #: Tickers of a heading of two lines.
        self.tickers: tuple[str, ...] = ()
        self.table: Table = read_table(path, self._choose, limit)
        self._decimal = decimal_sign(self._price_texts(), self.table.delimiter)
        self._times: Times | None = None

    @property
    def times(self) -> Times:
        """Return the sessions of the rows."""
        if self._times is None:
            self._times = read_days(self._last_use("date"), self._reading.calendar)
        return self._times

    def bars(self, symbol: str) -> RawBars:
        """Return all rows as one symbol's, once: columns that were read are dropped."""
        values, cells = {}, {self.columns["date"]: self.times.unreadable}
        for name in NUMBERS:
            if name in self.columns:
                values[name], cells[self.columns[name]] = read_numbers(self._last_use(name), self._decimal)
        whole = RawBars(
            symbol=symbol,
            dates=self.times.days,
            values=values,
            rows=self.table.rows,
            adjustment=self._adjustment(),
            halted=self._halted(),
            file=self.path.name,
            unreadable=unreadable(cells),
            vendor=self._reading.vendor.name,
            read_as=self.times.reading,
        )
        kept = self._kept()
        return _with_torn(whole if kept is None else whole.taken(np.flatnonzero(kept)), self.table.torn)

    def symbol_codes(self) -> tuple[list[str], NDArray[np.int32]]:
        """Return every symbol as it is written, an empty text for none, and which one each kept row has, `[rows]`."""
        kept = self._kept()
        texts = self._texts(self._last_use("symbol"))
        encoded = _encoded(texts if kept is None else texts.filter(pa.array(kept)))
        names = [*encoded.dictionary.to_pylist(), ""]
        codes = encoded.indices.cast(pa.int32()).fill_null(len(names) - 1).to_numpy(zero_copy_only=False).copy()
        if "" in names[:-1]:
            codes[codes == names.index("")] = len(names) - 1
        return names, codes

    def symbol_texts(self) -> pa.ChunkedArray:
        """Return the column of symbols.

        Raises:
            DataError: It holds no texts.
        """
        return self._texts(self.table.column(self.columns["symbol"])).cast(pa.string())

    def _texts(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = column.type
        if pa.types.is_dictionary(kind) and kind.value_type == pa.string():
            return column
        try:
            return column.cast(pa.string())
        except pa.ArrowException as error:
            raise DataError(f"{self.path.name}: symbols are {kind}, expected text") from error

    def of_tickers(self) -> Iterator[RawBars]:
        """Return the rows of each ticker of a heading of two lines."""
        for ticker in self.tickers:
            self.columns = self._columns_of(self.table.names, ticker)
            yield _without_blank_rows(self.bars(checked_symbol(ticker, self.path.name)))

    def _last_use(self, name: str) -> pa.ChunkedArray:
        """Return a field's column, and drop it where no other field is read from it: a table may be long."""
        column = self.columns[name]
        return self.table.column(column, last=list(self.columns.values()).count(column) == 1)

    def _choose(self, names: Sequence[str]) -> dict[str, bool]:
        self.tickers = tuple(sorted({name.partition("|")[2] for name in names if "|" in name}))
        every: dict[str, bool] = {}
        for ticker in self.tickers or ("",):
            self.columns = self._columns_of(names, ticker)
            every |= {name: field in NUMBERS for field, name in self.columns.items()}
        self.columns = self._columns_of(names, self.tickers[0] if self.tickers else "")
        return every

    def _columns_of(self, names: Sequence[str], ticker: str) -> dict[str, str]:
        mine = [name for name in names if not ticker or name.partition("|")[2] in {ticker, ""}]
        flat = [name.partition("|")[0] if ticker else name for name in mine]
        chosen = {**self._reading.vendor.columns_of(flat), **self._reading.chosen}
        back = dict(zip(flat, mine, strict=True))
        return {field: back[name] for field, name in find_columns(flat, chosen, self.path.name).items()}

    def _adjustment(self) -> str:
        asked = self._reading.adjustment
        found = adjustment_of(self.columns, asked, self.path.name)
        # A factor beside prices that are adjusted already shows in the values alone.
        return "auto" if asked == "auto" and found == "factor" else found

    def _price_texts(self) -> Iterator[str]:
        for name in ("open", "high", "low", "close"):
            if pa.types.is_string(self.table.types[self.columns[name]]):
                column = self.table.column(self.columns[name])
                yield from (text for text in column.slice(0, DECIMAL_ROWS).to_pylist() if text)

    def _halted(self) -> BoolArray | None:
        for name, texts in (("halted", _YES), ("trading", _NO)):
            if name in self.columns:
                return _among(self.table.column(self.columns[name]), texts)
        return None

    def _kept(self) -> BoolArray | None:
        """Return the rows of the series that the vendor's recipe keeps."""
        wanted = self._reading.vendor.series
        if not wanted or "series" not in self.columns:
            return None
        return _among(self.table.column(self.columns["series"]), wanted)


def _encoded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return texts by their place among the distinct ones."""
    if pa.types.is_dictionary(texts.type):
        encoded = texts.unify_dictionaries().combine_chunks()
        names = encoded.dictionary.to_pylist()
        # A file may write a text twice among its distinct ones.
        if None not in names and len(set(names)) == len(names):
            return encoded
    return texts.cast(pa.string()).combine_chunks().dictionary_encode()


def _among(column: pa.ChunkedArray, texts: Sequence[str]) -> BoolArray:
    written = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
    among: BoolArray = pc.is_in(written, value_set=pa.array(texts)).to_numpy()
    return among


def read_days(column: pa.ChunkedArray, calendar: SessionCalendar) -> Times:
    """Return the sessions that a column of any type means."""
    kind = column.type
    if pa.types.is_date(kind):
        return Times(days=column.cast(pa.date32()).to_numpy().astype("datetime64[D]"))
    if pa.types.is_timestamp(kind):
        days = _whole_days(column)
        if days is not None:
            return Times(days=days)
        column = _stamp_texts(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        known = column.is_valid().to_numpy()
        floats = column.cast(pa.float64(), safe=False).fill_null(0)
        whole = column.cast(pa.int64(), safe=False).fill_null(0).to_numpy()
        times = read_day_numbers(whole, known & np.isfinite(floats.to_numpy()), calendar)
        broken = np.flatnonzero(known & (floats.to_numpy() != np.floor(floats.to_numpy())))
        times.days[broken] = np.datetime64("NaT", "D")
        times.unreadable.update({int(row): str(column[int(row)].as_py()) for row in broken})
        return times
    try:
        text = column.cast(pa.string()).combine_chunks()
    except pa.ArrowException:
        return Times(
            days=np.full(len(column), np.datetime64("NaT", "D")),
            unreadable=dict.fromkeys(range(len(column)), f"{kind} value"),
        )
    days = _iso_days(text)
    if days is not None:
        return Times(days=days)
    encoded = text.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    texts = [None if one.strip() in BLANKS else one for one in encoded.dictionary.to_pylist()]
    return read_texts([*texts, None], codes, calendar)


def _whole_days(column: pa.ChunkedArray) -> SessionArray | None:
    """Return the days of timestamps that are all midnights without a zone: dates; None: they are not."""
    if column.type.tz is not None:
        return None
    days = column.cast(pa.date32(), safe=False)
    if not pc.all(pc.equal(days.cast(column.type), column), min_count=0).as_py():
        return None
    return _plain_days(days)


def _iso_days(text: pa.StringArray) -> SessionArray | None:
    """Return the days of texts that are all YYYY-MM-DD; None: at least one is something else."""
    try:
        return _plain_days(text.cast(pa.date32()))
    except pa.ArrowException:
        return None


def _plain_days(days: pa.ChunkedArray | pa.Array) -> SessionArray | None:
    """Return days of the years that a calendar writes; None: there is another one."""
    found: SessionArray = days.to_numpy(zero_copy_only=False).astype("datetime64[D]")
    known = found[~np.isnat(found)]
    if len(known) and not np.datetime64("0001-01-01") <= known.min() <= known.max() <= np.datetime64("9999-12-31"):
        return None
    return found


def _stamp_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return timestamps as texts of microseconds, with a Z where they are instants."""
    zoned = column.type.tz is not None
    plain = pc.floor_temporal(column.cast(pa.timestamp("us", column.type.tz), safe=False), unit="microsecond")
    naive = plain.cast(pa.timestamp("us")) if zoned else plain
    text = pc.strftime(naive, format="%Y-%m-%dT%H:%M:%S")
    return pc.binary_join_element_wise(text, "Z", "") if zoned else text


def _without_blank_rows(bars: RawBars) -> RawBars:
    """Return the rows of a ticker that a frame of several has: a row of another's session is blank in its columns."""
    blank = np.logical_and.reduce([np.isnan(bars.values[name]) for name in ("open", "high", "low", "close", "volume")])
    unread = np.isin(np.arange(len(blank)), list(bars.unreadable))
    return bars.taken(np.flatnonzero(~blank | unread))


def _with_torn(bars: RawBars, torn: Mapping[int, str]) -> RawBars:
    """Return the bars with a row of nothing for each line that had other cells than the heading."""
    if not torn:
        return bars
    count, start = len(torn), len(bars.rows)
    cells = {start + at: ("whole row", text[:200]) for at, text in enumerate(torn.values())}
    halted = None if bars.halted is None else np.concatenate((bars.halted, np.zeros(count, bool)))
    return replace(
        bars,
        dates=np.concatenate((bars.dates, np.full(count, np.datetime64("NaT", "D")))),
        values={name: np.concatenate((values, np.full(count, np.nan))) for name, values in bars.values.items()},
        rows=np.concatenate((bars.rows, np.fromiter(torn, np.int64, count))),
        halted=halted,
        unreadable={**bars.unreadable, **cells},
    )
