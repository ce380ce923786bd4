"""Grouping: rows of bars, by symbol.

Owns: rows one after the other, the rows of tables of many symbols.
Must not know: files, columns' names, which rows are true.
Invariant: no row is lost; a symbol's rows keep the order in which they came, which is evidence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from strategies.market.columns import NUMBERS
from strategies.market.readers import RawBars

Codes = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The rows of one file, and whose they are."""

    rows: RawBars
    symbols: tuple[str, ...]
    #: Place of each row's symbol in `symbols`, `[rows]`; -1: nobody's.
    codes: Codes


class Grouped(Mapping[str, RawBars]):
    """Rows of many symbols out of one file or several; a symbol's rows are copied when it is asked for.

    Args:
        pieces: In the order of the files.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        # Files of other columns are not put together: a column that a file lacks is not a column of nothing.
        self._runs = [_Run(list(run)) for _, run in groupby(pieces, key=lambda piece: _kind(piece.rows))]
        self._symbols = sorted({symbol for run in self._runs for symbol in run.place})

    def __getitem__(self, symbol: str) -> RawBars:
        parts = [run.of(symbol) for run in self._runs if symbol in run.place]
        if not parts:
            raise KeyError(symbol)
        return joined(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)


class _Run:
    """Pieces of the same columns as one table, sorted by symbol."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        every = {symbol: None for piece in pieces for symbol in piece.symbols}
        names = {symbol: at for at, symbol in enumerate(every)}
        codes = np.concatenate([_renamed(piece, names) for piece in pieces])
        self._whole = joined([piece.rows for piece in pieces])
        #: Rows by symbol; None: they are so already.
        self._order: Codes | None = None
        if (np.diff(codes) < 0).any():
            self._order = np.argsort(codes, kind="stable").astype(np.int32)
            codes = codes[self._order]
        self._bounds = np.searchsorted(codes, np.arange(len(names) + 1))
        self.place = {symbol: at for symbol, at in names.items() if self._bounds[at] < self._bounds[at + 1]}
        self._marked = self._whole.marked()

    def of(self, symbol: str) -> RawBars:
        at = self.place[symbol]
        rows = slice(int(self._bounds[at]), int(self._bounds[at + 1]))
        chosen = rows if self._order is None else self._order[rows]
        return self._whole.taken(chosen, self._marked, symbol=symbol)


def joined(parts: Sequence[RawBars]) -> RawBars:
    """Return rows of several files, one file after the other, under the symbol of the first."""
    if len(parts) == 1:
        return parts[0]
    fields = [name for name in NUMBERS if any(name in part.values for part in parts)]
    cells: dict[int, tuple[str, str]] = {}
    start = 0
    for part in parts:
        cells |= {start + row: cell for row, cell in part.unreadable.items()}
        start += len(part.rows)
    halted = [np.zeros(len(part.rows), bool) if part.halted is None else part.halted for part in parts]
    names = tuple(dict.fromkeys(name for part in parts for name in part.file_names))
    return replace(
        parts[0],
        dates=np.concatenate([part.dates for part in parts]),
        values={
            name: np.concatenate([part.values.get(name, np.full(len(part.rows), np.nan)) for part in parts])
            for name in fields
        },
        rows=np.concatenate([part.rows for part in parts]),
        halted=np.concatenate(halted) if any(part.halted is not None for part in parts) else None,
        file=f"{parts[0].file_names[0]} … {parts[-1].file_names[-1]}",
        files=(names, np.concatenate([_files_of(part, names) for part in parts])),
        unreadable=cells,
        adjustment=max((part.adjustment for part in parts), key=lambda one: one == "auto"),
    )


def _kind(rows: RawBars) -> tuple[object, ...]:
    return tuple(rows.values), rows.adjustment, rows.halted is None, rows.vendor, rows.read_as


def _renamed(piece: Piece, names: Mapping[str, int]) -> Codes:
    """Return the codes of a piece in the names of all pieces."""
    places = np.array([*(names[symbol] for symbol in piece.symbols), -1], dtype=np.int32)
    renamed: Codes = places[piece.codes]
    return renamed


def _files_of(part: RawBars, names: Sequence[str]) -> Codes:
    own, codes = part.files or (part.file_names, np.zeros(len(part.rows), np.int32))
    places = np.array([names.index(name) for name in own], dtype=np.int32)
    files: Codes = places[codes]
    return files
