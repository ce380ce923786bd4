"""Raw bars: a vendor's files, as one symbol's rows after another.

Owns: which file holds which symbol; a folder with a file a symbol, a folder with a file a session, one table of many.
Must not know: which rows are true, adjustment, snapshots.
Invariant: no row is lost or changed; a file or a cell that cannot be read is named, and costs that file or row alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from strategies.errors import DataError
from strategies.market import qlib_files
from strategies.market.calendar import SessionCalendar
from strategies.market.columns import ADJUSTMENTS, ALIASES, NUMBERS, is_heading
from strategies.market.grouping import Grouped, Piece
from strategies.market.readers import RawBars, Reader, Reading
from strategies.market.symbols import checked_symbol, folded, symbol_of_stem
from strategies.market.tables import ENDINGS, ending_of, heading_names
from strategies.market.vendors import OTHER, Vendor, recognised

#: Largest file, in bytes.
MAX_BYTES = 4 * 1024**3
#: Most rows of one table, and of one symbol's file (four centuries of days).
MAX_TABLE_ROWS = 50_000_000
MAX_SYMBOL_ROWS = 100_000
#: Files of a folder that are looked into to learn whether each holds one symbol.
PROBED = 3


@dataclass(slots=True, kw_only=True)
class RawSource:
    """A folder of files or one table, by symbol."""

    reading: Reading
    #: Ascending.
    symbols: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    tables: Mapping[str, RawBars] = field(default_factory=dict)
    #: Place to the reason: files that are no symbol's, rows without a symbol.
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def vendor(self) -> Vendor:
        """Return whose recipe the files are read by."""
        return self.reading.vendor

    def read(self, symbol: str) -> RawBars:
        """Return the rows of one symbol.

        Raises:
            DataError: Its file cannot be read.
        """
        if symbol in self.tables:
            return self.tables[symbol]
        path = self.files[symbol]
        reader = _reader(path, self.reading, MAX_SYMBOL_ROWS)
        if reader.tickers:
            _refuse_other_symbols(reader.tickers, symbol, path)
            return replace(next(reader.of_tickers()), symbol=symbol)
        if "symbol" in reader.columns:
            _refuse_other_symbols(reader.symbol_texts().unique().to_pylist(), symbol, path)
        return reader.bars(symbol)


@cache
def _xnys() -> SessionCalendar:
    return SessionCalendar("XNYS")


def open_source(
    path: Path,
    chosen: Mapping[str, str],
    adjustment: str,
    *,
    calendar: SessionCalendar | None = None,
    like: str = "auto",
) -> RawSource:
    """Return the raw bars under a path: a folder of files, one file, or Qlib's binary directory.

    Args:
        path: Folder or file; in a folder of a file a symbol the file's name is the symbol, in a table a column says it.
        chosen: Field to column name, where the aliases do not do.
        adjustment: One of `ADJUSTMENTS`.
        calendar: Whose zone instants are converted to; default XNYS.
        like: Name of a vendor, or `auto`: recognised by the heading.

    Raises:
        DataError: Nothing readable is there, or what was asked contradicts itself.
    """
    _refuse_unknown(chosen, adjustment)
    reading = Reading(chosen=chosen, adjustment=adjustment, calendar=calendar or _xnys())
    if path.is_dir() and qlib_files.is_qlib_dir(path):
        source = RawSource(reading=replace(reading, vendor=recognised(("qlib bin",), "auto")), tables=_qlib_bars(path))
    elif path.is_dir():
        source = _open_folder(path, reading, like)
    elif path.is_file():
        source = RawSource(reading=replace(reading, vendor=recognised(heading_names(path), like)))
        source.tables = _merged(source, [path], single=True)
    else:
        raise DataError(f"{path}: no such file or folder")
    source.symbols = tuple(sorted(source.files or source.tables))
    if not source.symbols:
        refused = "; ".join(f"{place}: {reason}" for place, reason in list(source.refused.items())[:3])
        raise DataError(f"{path}: no symbol can be read; {refused}")
    return source


def _reader(path: Path, reading: Reading, limit: int) -> Reader:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
    return Reader(path, reading, limit)


def _is_note(path: Path) -> bool:
    """Return whether a text file is no table of bars."""
    if not path.name.lower().endswith((".txt", ".txt.gz")):
        return False
    try:
        names = heading_names(path)
        return not (is_heading(names) or any("|" in name for name in names))
    except DataError:
        return path.stat().st_size > 0


def _refuse_unknown(chosen: Mapping[str, str], adjustment: str) -> None:
    for name in chosen:
        if name not in ALIASES:
            raise DataError(f"unknown field {name!r}, the fields are {', '.join(ALIASES)}")
    if adjustment not in ADJUSTMENTS:
        raise DataError(f"adjustment was {adjustment!r}, must be one of {', '.join(ADJUSTMENTS)}")


def _open_folder(folder: Path, reading: Reading, like: str) -> RawSource:
    listed = [path for path in sorted(folder.iterdir()) if ending_of(path.name) and not path.name.startswith(".")]
    files = [path for path in listed if path.is_file() and not _is_note(path)]
    if not files:
        raise DataError(f"{folder}: holds no {', '.join(ENDINGS)} file")
    source = RawSource(reading=replace(reading, vendor=_first_vendor(files, like)))
    if source.vendor.tables or _many_symbols_a_file(files, source):
        source.tables = _merged(source, files, single=False)
    else:
        source.files = _symbol_files(files, source)
    return source


def _first_vendor(files: Sequence[Path], like: str) -> Vendor:
    found = recognised((), like)
    for path in files[:PROBED] if found is OTHER else ():
        try:
            found = recognised(heading_names(path), like)
        except DataError:
            continue
        if found is not OTHER:
            break
    return found


def _many_symbols_a_file(files: Sequence[Path], source: RawSource) -> bool:
    """Return whether files hold several symbols each: a file a session, say, or a frame of several tickers."""
    for path in files[:PROBED]:
        try:
            reader = _reader(path, source.reading, MAX_TABLE_ROWS)
            if len(reader.tickers) > 1:
                return True
            if "symbol" in reader.columns:
                symbols = reader.symbol_texts().unique().to_pylist()
                if len(symbols) > 1 or _names_no_symbol(path, symbols):
                    return True
        except DataError:
            continue
    return False


def _names_no_symbol(path: Path, symbols: Sequence[str | None]) -> bool:
    """Return whether a file is named as tables are, with words or a date, and holds another symbol."""
    stem = path.name[: -len(ending_of(path.name) or "")]
    wordy = "_" in stem or " " in stem or sum(letter.isdigit() for letter in stem) >= 6  # noqa: PLR2004 - a date
    return wordy and all(symbol is not None and folded(symbol.strip()) != folded(stem) for symbol in symbols)


def _symbol_files(paths: Sequence[Path], source: RawSource) -> dict[str, Path]:
    claims: dict[str, list[Path]] = {}
    for path in paths:
        try:
            symbol = symbol_of_stem(path.name[: -len(ending_of(path.name) or "")], path.name)
        except DataError as error:
            source.refused[path.name] = str(error)
            continue
        claims.setdefault(symbol, []).append(path)
    for symbol, claimed in claims.items():
        if len(claimed) > 1:
            # Nothing says which of the files is the symbol's.
            names = " and ".join(path.name for path in claimed)
            source.refused |= {path.name: f"{names} are both symbol {symbol}" for path in claimed}
    return {symbol: claimed[0] for symbol, claimed in claims.items() if len(claimed) == 1}


def _merged(source: RawSource, paths: Sequence[Path], *, single: bool) -> Mapping[str, RawBars]:
    """Return the symbols of tables of many, each with its rows of all files."""
    pieces: list[Piece] = []
    for path in paths:
        try:
            pieces.extend(_pieces(path, source))
        except DataError as error:
            if single:
                raise
            source.refused[path.name] = str(error)
    return Grouped(pieces)


def _pieces(path: Path, source: RawSource) -> list[Piece]:
    reader = _reader(path, source.reading, MAX_TABLE_ROWS)
    if reader.tickers:
        return [_piece(bars) for bars in reader.of_tickers()]
    if "symbol" in reader.columns:
        return [_of_many(reader, source)]
    symbol = symbol_of_stem(path.name[: -len(ending_of(path.name) or "")], path.name)
    _refuse_long(len(reader.table.rows), path)
    return [_piece(reader.bars(symbol))]


def _piece(bars: RawBars) -> Piece:
    return Piece(rows=bars, symbols=(bars.symbol,), codes=np.zeros(len(bars.rows), np.int32))


def _of_many(reader: Reader, source: RawSource) -> Piece:
    path = reader.path
    written, codes = reader.symbol_codes()
    whole = reader.bars("")
    counts = np.bincount(codes, minlength=len(written))
    spelt: dict[str, list[int]] = {}
    for at in np.flatnonzero(counts).tolist():
        try:
            _refuse_long(int(counts[at]), path)
            spelt.setdefault(checked_symbol(written[at].strip(), path.name), []).append(at)
        except DataError as error:
            first = int(np.argmax(codes == at))
            source.refused[f"{path.name}, row {whole.rows[first]}"] = f"{counts[at]} rows: {error}"
    torn = len(whole.rows) - len(codes)
    if torn:
        source.refused[f"{path.name}, row {whole.rows[len(codes)]}"] = f"{torn} rows have other cells than the heading"
    for symbol, places in [one for one in spelt.items() if len(one[1]) > 1]:
        # They need not be one security.
        texts = " and ".join(written[at] for at in places)
        source.refused[f"{path.name}, {symbol}"] = f"symbol {symbol} is written in two ways, {texts}"
        del spelt[symbol]
    place = np.full(len(written), -1, np.int32)
    place[[at for (at,) in spelt.values()]] = np.arange(len(spelt))
    return Piece(rows=whole, symbols=tuple(spelt), codes=np.concatenate((place[codes], np.full(torn, -1, np.int32))))


def _qlib_bars(folder: Path) -> dict[str, RawBars]:
    return {
        symbol: RawBars(
            symbol=symbol,
            dates=dates,
            values=values,
            rows=np.arange(1, len(dates) + 1),
            adjustment="adjusted",
            file=f"features/{symbol.lower()}",
            vendor="qlib bin",
        )
        for symbol, dates, values in qlib_files.read_qlib_dir(folder)
    }


def _refuse_other_symbols(texts: Sequence[str | None], symbol: str, path: Path) -> None:
    for text in texts:
        if text is None:
            raise DataError(f"{path.name}: a row has no symbol")
        found = checked_symbol(text.strip(), path.name)
        # `AAPL.US` in aapl.txt: the suffix is the vendor's name of the exchange.
        if found != symbol and not found.upper().startswith(f"{symbol.upper()}."):
            raise DataError(f"{path.name}: holds rows of {text[:40]!r}, its name says {symbol}")


def _refuse_long(rows: int, path: Path) -> None:
    if rows > MAX_SYMBOL_ROWS:
        raise DataError(f"{path.name}: has {rows} rows or more, at most {MAX_SYMBOL_ROWS} are read")


__all__ = ["MAX_SYMBOL_ROWS", "MAX_TABLE_ROWS", "NUMBERS", "RawBars", "RawSource", "open_source"]
