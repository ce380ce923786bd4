"""Columns of raw tables: which of a vendor's names means which field.

Owns: the aliases of every field, and the choice among them.
Must not know: file formats, values.
Invariant: a field is read from exactly one column, or the table is refused; nothing is guessed between two equals.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from strategies.errors import DataError

#: Field to names, best first; names are compared in lower case with every run of other signs as one underscore.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "symbol": (
        "symbol",
        "ticker",
        "tckrsymb",
        "act_symbol",
        "instrument",
        "code",
        "ts_code",
        "sc_code",
        "scrip",
        "tic",
        "name",
    ),
    "date": (
        "date",
        "trade_date",
        "session",
        "day",
        "date1",
        "datetime",
        "timestamp",
        "window_start",
        "traddt",
        "trading_date",
        "time",
        "t",
        "index",
        "level_0",
        "index_level_0",
        "column_1",
        "unnamed_0",
    ),
    "open": ("open", "o", "open_price", "opnpric", "1_open"),
    "high": ("high", "h", "high_price", "hghpric", "2_high"),
    "low": ("low", "l", "low_price", "lwpric", "3_low"),
    "close": ("close", "c", "close_price", "clspric", "4_close"),
    "volume": (
        "volume",
        "vol",
        "v",
        "ttl_trd_qnty",
        "tottrdqty",
        "ttltradgvol",
        "5_volume",
        "6_volume",
        "traded_volume",
    ),
    "vwap": ("vwap", "vw", "wap", "average", "avg_price", "average_price"),
    "adj_close": (
        "adj_close",
        "adjclose",
        "adjusted_close",
        "close_adj",
        "close_adjusted",
        "5_adjusted_close",
    ),
    "factor": ("factor", "adj_factor", "adjustment_factor"),
    "dividend": (
        "dividends",
        "dividend",
        "dividend_amount",
        "divcash",
        "div_cash",
        "cash_dividend",
        "dividend_cash",
        "7_dividend_amount",
    ),
    "split": (
        "stock_splits",
        "stock_split",
        "splits",
        "split",
        "split_ratio",
        "split_factor",
        "splitfactor",
        "split_coefficient",
        "8_split_coefficient",
    ),
    "preclose": (
        "preclose",
        "pre_close",
        "prev_close",
        "prevclose",
        "previous_close",
        "prev_close_price",
        "prvsclsgpric",
        "yesterday_close",
        "lclose",
        "prior_close",
    ),
    "halted": ("halted", "is_halted", "halt", "suspended", "is_suspended", "paused"),
    "trading": ("tradestatus", "trade_status", "trading_status", "is_trading", "tradable"),
    "series": ("series", "sctysrs"),
}
REQUIRED = ("date", "open", "high", "low", "close", "volume")
#: Fields read as numbers.
NUMBERS = ("open", "high", "low", "close", "volume", "vwap", "adj_close", "factor", "dividend", "split", "preclose")
#: Fields read as text that is no date and no symbol.
FLAGS = ("halted", "trading", "series")
#: What a table may be adjusted by: the choice of `ImportOptions.adjustment`. `actions`: its splits, dividends and
#: previous closes; `adjusted`: its prices are adjusted already.
ADJUSTMENTS = ("auto", "adj_close", "factor", "actions", "adjusted", "none")


def find_columns(names: Sequence[str], chosen: Mapping[str, str], where: str) -> dict[str, str]:
    """Return field to column name, for every field the table has.

    Args:
        names: Column names as they are in the table.
        chosen: Field to column name, where the caller knows better than the aliases.
        where: The table, for the error's sentence.

    Raises:
        DataError: A required field has no column, two columns have an equal claim to one, or a chosen one is absent.
    """
    spelt: dict[str, list[str]] = {}
    for name in names:
        spelt.setdefault(normal(name), []).append(name)
    found = {field: _best(field, aliases, spelt, where) for field, aliases in ALIASES.items() if field not in chosen}
    columns = {field: name for field, name in found.items() if name is not None and name not in chosen.values()}
    columns.update(_checked_choice(chosen, names, where))
    missing = [field for field in REQUIRED if field not in columns]
    if missing:
        raise DataError(f"{where}: no column for {', '.join(missing)}; the columns are {_listed(names)}")
    return columns


def is_heading(names: Sequence[str], *, partly: bool = False) -> bool:
    """Return whether names are those of bars: a date and a close, and the other required ones unless `partly`."""
    known = {normal(name) for name in names}
    wanted = ("date", "close") if partly else REQUIRED
    return all(known & set(ALIASES[field]) for field in wanted)


def adjustment_of(columns: Mapping[str, str], asked: str, where: str) -> str:
    """Return what prices are adjusted by: one of `ADJUSTMENTS`, `auto` where the values must decide.

    Raises:
        DataError: The column asked for is absent.
    """
    if asked not in ADJUSTMENTS:
        raise DataError(f"adjustment was {asked!r}, must be one of {', '.join(ADJUSTMENTS)}")
    events = [name for name in ("dividend", "split", "preclose") if name in columns]
    present = [name for name in ("adj_close", "factor") if name in columns]
    if asked == "auto":
        return "auto" if events or len(present) > 1 else (present[0] if present else "none")
    if asked == "actions" and not events:
        raise DataError(
            f"{where}: no column of splits, dividends or previous closes; {_listed(tuple(columns.values()))}"
        )
    if asked in {"adj_close", "factor"} and asked not in present:
        raise DataError(f"{where}: no column for {asked}; the columns are {_listed(tuple(columns.values()))}")
    return asked


@lru_cache(maxsize=4096)
def normal(name: str) -> str:
    """Return a column's name in lower case, with every run of other signs as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _best(field: str, aliases: Sequence[str], spelt: Mapping[str, Sequence[str]], where: str) -> str | None:
    for alias in aliases:
        claims = spelt.get(alias, ())
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


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"  # noqa: PLR2004 - a readable sentence
