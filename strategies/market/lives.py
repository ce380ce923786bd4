"""Lives of symbols: renames and tickers that another company took over.

Owns: the mapping file, and which rows belong to which symbol.
Must not know: prices, snapshots.
Invariant: a row belongs to one life or to none; a life ends where the mapping says so.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from strategies.errors import DataError
from strategies.market.bars import BoolArray, SessionArray
from strategies.market.grouping import joined
from strategies.market.raw_bars import RawBars, RawSource
from strategies.market.symbols import checked_symbol

#: Largest mapping file, in bytes.
MAX_BYTES = 16 * 1024**2
COLUMNS = ("symbol", "first", "last", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The days on which a vendor's symbol is one security."""

    #: As the vendor writes it.
    symbol: str
    first: date
    last: date
    #: What the snapshot calls it.
    name: str


def read_lives(path: Path) -> tuple[Life, ...]:
    """Return the lives of a mapping file: CSV with the columns symbol, first, last and name; an empty day is open.

    Raises:
        DataError: It cannot be read, or two lives of a symbol overlap.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path}: its columns are {reader.fieldnames}, they must be {', '.join(COLUMNS)}")
            lives = tuple(_life(row, f"{path}, line {reader.line_num}") for row in reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {str(error)[:200]}") from error
    for number, one in enumerate(lives):
        for other in lives[:number]:
            if (one.symbol == other.symbol or one.name == other.name) and max(one.first, other.first) <= min(
                one.last, other.last
            ):
                raise DataError(f"{path}: {other.symbol} as {other.name} and {one.symbol} as {one.name} overlap")
    return lives


def planned(symbols: Sequence[str], lives: Sequence[Life]) -> dict[str, tuple[Life, ...]]:
    """Return every symbol of the snapshot, ascending, with the lives that it is made of; none: all of a vendor's rows.

    A vendor's symbol that has lives is in the plan under its own name as well, for rows that are in none of them.
    """
    mapped = {life.symbol for life in lives if life.symbol in symbols}
    plan: dict[str, tuple[Life, ...]] = {symbol: () for symbol in symbols if symbol not in mapped}
    for life in lives:
        if life.symbol in mapped:
            plan[life.name] = (*plan.get(life.name, ()), life)
    for symbol in mapped:
        plan[symbol] = (*plan.get(symbol, ()), Life(symbol=symbol, first=date.max, last=date.min, name=symbol))
    return dict(sorted(plan.items()))


def rows_of(
    raw: RawSource, name: str, plan: Mapping[str, tuple[Life, ...]], lives: Sequence[Life]
) -> tuple[RawBars, BoolArray | None]:
    """Return the rows of a symbol, and which of them are in no life; None: it has no lives.

    Raises:
        DataError: Its file cannot be read.
    """
    if not plan[name]:
        return raw.read(name), None
    parts = []
    for life in plan[name]:
        rows = raw.read(life.symbol)
        stray = life.last < life.first
        spans = [one for one in lives if one.symbol == life.symbol] if stray else [life]
        inside = np.logical_or.reduce([_within(rows.dates, one) for one in spans])
        parts.append((rows.taken(np.flatnonzero(~inside if stray else inside), symbol=name), stray))
    whole = joined([part for part, _ in parts])
    return whole, np.concatenate([np.full(len(part.rows), stray) for part, stray in parts])


def _within(dates: SessionArray, life: Life) -> BoolArray:
    within: BoolArray = (dates >= np.datetime64(life.first, "D")) & (dates <= np.datetime64(life.last, "D"))
    return within


def _life(row: dict[str, str], where: str) -> Life:
    symbol = checked_symbol((row["symbol"] or "").strip(), where)
    return Life(
        symbol=symbol,
        first=date.fromisoformat(row["first"].strip()) if (row["first"] or "").strip() else date.min,
        last=date.fromisoformat(row["last"].strip()) if (row["last"] or "").strip() else date.max,
        name=checked_symbol((row["name"] or "").strip() or symbol, where),
    )
