"""Lives of symbols: renames and tickers that another company took over.

Owns: the mapping file, and which rows belong to which symbol.
Must not know: bars' values, snapshots.
Invariant: a row belongs to one life or to none; a life ends where the mapping says so.
"""

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from strategies.errors import DataError
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


def _life(row: dict[str, str], where: str) -> Life:
    symbol = checked_symbol((row["symbol"] or "").strip(), where)
    return Life(
        symbol=symbol,
        first=date.fromisoformat(row["first"].strip()) if (row["first"] or "").strip() else date.min,
        last=date.fromisoformat(row["last"].strip()) if (row["last"] or "").strip() else date.max,
        name=checked_symbol((row["name"] or "").strip() or symbol, where),
    )
