"""Parts: files with the appended bars of many symbols, and the last bars of all symbols in one file.

Owns: their layout, writing and reading them.
Must not know: snapshots' manifests beyond a part's name and hash, rules.
Invariant: a part's bars are sorted by symbol and session; what is read has the bytes that were stated.
"""

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from strategies.errors import DataError
from strategies.files import write_synced
from strategies.market.bars import FIELDS, FloatArray, IntArray, SessionArray
from strategies.market.manifest import COLUMNS, Part

#: The last bars of all symbols, by which appended ones are judged.
RECENT = "recent.bars"
#: Sessions before the last one that they reach back.
RECENT_BARS = 60
#: A symbol, its sessions and its columns.
SymbolColumns = tuple[str, SessionArray, Mapping[str, FloatArray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyBars:
    """Bars of many symbols, sorted by symbol and session."""

    #: Ascending, `[symbols]`.
    symbols: tuple[str, ...]
    #: Where each symbol's bars begin, and behind the last one where they end, `[symbols + 1]`.
    bounds: IntArray
    #: `[bars]`.
    sessions: SessionArray
    #: Column to values `[bars]`; NaN where there is none.
    columns: Mapping[str, FloatArray]
    #: Symbol to its place; made from `symbols`.
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {symbol: row for row, symbol in enumerate(self.symbols)})

    def of(self, symbol: str) -> tuple[SessionArray, dict[str, FloatArray]]:
        """Return one symbol's sessions and columns; empty where it has no bars here."""
        row = self.index.get(symbol)
        if row is None:
            return self.sessions[:0], {name: values[:0] for name, values in self.columns.items()}
        chosen = slice(int(self.bounds[row]), int(self.bounds[row + 1]))
        return self.sessions[chosen], {name: values[chosen] for name, values in self.columns.items()}


def gathered(bars: Iterable[SymbolColumns]) -> ManyBars:
    """Return bars of symbols as one table; symbols without bars are left out."""
    kept = sorted((one for one in bars if len(one[1])), key=lambda one: one[0])
    names = [name for name in COLUMNS if name in FIELDS or any(name in columns for *_, columns in kept)]
    columns: dict[str, FloatArray] = {}
    for name in names:
        pieces = [one.get(name, np.full(len(sessions), np.nan)) for _, sessions, one in kept]
        columns[name] = np.concatenate([np.empty(0), *pieces])
    return ManyBars(
        symbols=tuple(symbol for symbol, *_ in kept),
        bounds=np.concatenate(([0], np.cumsum([len(sessions) for _, sessions, _ in kept], dtype=np.int64))),
        sessions=np.concatenate([np.empty(0, "datetime64[D]"), *(sessions for _, sessions, _ in kept)]),
        columns=columns,
    )


def followed(bars: ManyBars, added: ManyBars, most: int) -> ManyBars:
    """Return bars and those that follow them, of each symbol the last ones.

    Args:
        bars: What was there.
        added: Later bars of some of the symbols, and of new ones.
        most: Bars that are kept of a symbol.
    """
    symbols = tuple(sorted({*bars.symbols, *added.symbols}))
    index = {symbol: row for row, symbol in enumerate(symbols)}
    codes = np.concatenate([_codes(one, index) for one in (bars, added)])
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(symbols) + 1))
    order = order[np.arange(len(order)) >= (bounds[1:] - most)[codes[order]]]
    nothing = [np.full(len(one.sessions), np.nan) for one in (bars, added)]
    return ManyBars(
        symbols=symbols,
        bounds=np.searchsorted(codes[order], np.arange(len(symbols) + 1)).astype(np.int64),
        sessions=np.concatenate((bars.sessions, added.sessions))[order],
        columns={
            name: np.concatenate(
                [one.columns.get(name, none) for one, none in zip((bars, added), nothing, strict=True)]
            )[order]
            for name in COLUMNS
            if name in bars.columns or name in added.columns
        },
    )


def without(bars: ManyBars, symbols: Container[str]) -> ManyBars:
    """Return the bars of all symbols but these."""
    return gathered((symbol, *bars.of(symbol)) for symbol in bars.symbols if symbol not in symbols)


def _codes(bars: ManyBars, index: Mapping[str, int]) -> IntArray:
    places = np.array([index[symbol] for symbol in bars.symbols], dtype=np.int64)
    return np.repeat(places, np.diff(bars.bounds))


def write_many(path: Path, bars: ManyBars, *, synced: bool = True) -> str:
    """Write a file, and return the hash of its bytes; what is not synced is checked by its hash when it is read."""
    codes = np.repeat(np.arange(len(bars.symbols), dtype=np.int32), np.diff(bars.bounds))
    columns = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(bars.symbols, pa.string())),
        "date": pa.array(bars.sessions.astype("datetime64[D]"), pa.date32()),
    }
    columns |= {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in bars.columns.items()}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, compression="zstd", use_dictionary=["symbol"])
    content = sink.getvalue().to_pybytes()
    if synced:
        write_synced(path, content)
    else:
        path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_part(folder: Path, part: Part) -> ManyBars:
    """Return the bars of a part.

    Raises:
        DataError: Its file is absent, or not what the manifest states.
    """
    bars = _read(folder / part.name, part.file_sha256)
    if len(bars.sessions) != part.rows:
        raise DataError(f"{folder / part.name}: has {len(bars.sessions)} rows, the manifest states {part.rows}")
    return bars


def read_recent(folder: Path, file_sha256: str) -> ManyBars:
    """Return the last bars of all symbols of a snapshot.

    Raises:
        DataError: The file is absent, or not what the manifest states.
    """
    return _read(folder / RECENT, file_sha256)


@lru_cache(maxsize=32)
def _read(path: Path, file_sha256: str) -> ManyBars:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != file_sha256:
            raise DataError(f"{path}: its bytes are not those the manifest states ({len(content)} bytes)")
        table = parquet.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        names = table["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
        codes = names.indices.to_numpy(zero_copy_only=False)
        symbols = tuple(names.dictionary.to_pylist())
        if (np.diff(codes) < 0).any() or list(symbols) != sorted(symbols):
            raise DataError(f"{path}: its symbols do not ascend")
        return ManyBars(
            symbols=symbols,
            bounds=np.searchsorted(codes, np.arange(len(symbols) + 1)).astype(np.int64),
            sessions=table["date"].cast(pa.date32()).to_numpy().astype("datetime64[D]"),
            columns={name: _column(table[name]) for name in COLUMNS if name in table.column_names},
        )
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {(str(error).splitlines() or ['?'])[0][:200]}") from error


def _column(column: pa.ChunkedArray) -> FloatArray:
    values: FloatArray = column.cast(pa.float64()).to_numpy().copy()
    values.setflags(write=False)
    return values
