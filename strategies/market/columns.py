"""Columns of raw tables: which of a vendor's names means which field.

Owns: the aliases of every field, and the choice among them.
Must not know: file formats, values.
Invariant: a field is read from exactly one column, or the table is refused; nothing is guessed between two equals.
"""

import re
from collections.abc import Mapping, Sequence

from strategies.errors import DataError

#: Field to names, best first; names are compared in lower case with every run of other signs as one underscore.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "instrument", "code", "name"),
    "date": ("date", "session", "day", "datetime", "timestamp", "time"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v"),
    "vwap": ("vwap", "vw"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close", "close_adj", "close_adjusted"),
    "factor": ("factor", "adj_factor", "adjustment_factor"),
}
REQUIRED = ("date", "open", "high", "low", "close", "volume")
#: What a table may be adjusted by: the choice of `ImportOptions.adjustment`.
ADJUSTMENTS = ("auto", "adj_close", "factor", "none")


def find_columns(names: Sequence[str], chosen: Mapping[str, str], where: str) -> dict[str, str]:
    """Return field to column name, for every field the table has.

    Args:
        names: Column names as they stand in the table.
        chosen: Field to column name, where the caller knows better than the aliases.
        where: The table, for the error's sentence.

    Raises:
        DataError: A required field has no column, two columns have an equal claim to one, or a chosen one is absent.
    """
    found = {field: _best(field, aliases, names, where) for field, aliases in ALIASES.items() if field not in chosen}
    columns = {field: name for field, name in found.items() if name is not None and name not in chosen.values()}
    columns.update(_checked_choice(chosen, names, where))
    missing = [field for field in REQUIRED if field not in columns]
    if missing:
        raise DataError(f"{where}: no column for {', '.join(missing)}; the columns are {_listed(names)}")
    return columns


def adjustment_of(columns: Mapping[str, str], asked: str, where: str) -> str:
    """Return what prices are adjusted by: `adj_close`, `factor` or `none`.

    Raises:
        DataError: The column asked for is absent, or there are both and nothing was asked.
    """
    if asked not in ADJUSTMENTS:
        raise DataError(f"adjustment was {asked!r}, must be one of {', '.join(ADJUSTMENTS)}")
    present = [name for name in ("adj_close", "factor") if name in columns]
    if asked == "auto" and len(present) > 1:
        raise DataError(f"{where}: has both an adjusted close and a factor, so which to adjust by must be stated")
    if asked == "auto":
        return present[0] if present else "none"
    if asked != "none" and asked not in present:
        raise DataError(f"{where}: no column for {asked}; the columns are {_listed(tuple(columns.values()))}")
    return asked


def _best(field: str, aliases: Sequence[str], names: Sequence[str], where: str) -> str | None:
    for alias in aliases:
        claims = [name for name in names if _normal(name) == alias]
        if len(claims) > 1:
            raise DataError(f"{where}: columns {_listed(claims)} could all be {field}")
        if claims:
            return claims[0]
    return None


def _checked_choice(chosen: Mapping[str, str], names: Sequence[str], where: str) -> Mapping[str, str]:
    for field, name in chosen.items():
        if field not in ALIASES:
            raise DataError(f"unknown field {field!r}, the fields are {', '.join(ALIASES)}")
        if list(names).count(name) != 1:
            raise DataError(f"{where}: {list(names).count(name)} columns are named {name!r}, 1 is needed")
    return chosen


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"  # noqa: PLR2004 - a readable sentence
