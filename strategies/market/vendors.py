"""Vendors: whose files have which heading.

Owns: the recipes, and recognising a vendor by its heading.
Must not know: file formats, values.
Invariant: a recipe says only what the heading cannot: everything else is read as any other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from strategies.errors import DataError
from strategies.market.columns import normal


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What is known of one vendor's files."""

    name: str
    #: What its files are, in a sentence of docs/data.md.
    about: str
    #: Sets of columns that together give it away, as `normal` spells them.
    headings: tuple[frozenset[str], ...] = ()
    #: Field to column, as `normal` spells it, where the aliases would choose another one.
    columns: Mapping[str, str] = field(default_factory=dict)
    #: Whether a file holds many symbols even where only one is in it, and its name is none.
    tables: bool = False
    #: Series of securities whose rows are kept, in lower case; empty: all.
    series: tuple[str, ...] = ()

    def columns_of(self, names: Sequence[str]) -> dict[str, str]:
        """Return field to column name, for the recipe's columns that a table has."""
        spelt = {normal(name): name for name in names}
        return {one: spelt[column] for one, column in self.columns.items() if column in spelt}


def _with(*columns: str) -> frozenset[str]:
    return frozenset(columns)


OTHER = Vendor(name="any", about="A date, open, high, low, close and volume under common names.")
VENDORS: tuple[Vendor, ...] = (
    Vendor(
        name="yfinance",
        about="`download(...).to_csv()` of one or many tickers, with two or three heading lines, or `history(...)`; "
        "the moves on ex-days show whether its prices are adjusted already (`auto_adjust`).",
        headings=(
            _with("date", "open", "high", "low", "close", "adj_close", "volume"),
            _with("date", "open", "high", "low", "close", "volume", "dividends", "stock_splits"),
        ),
    ),
    Vendor(
        name="stooq",
        about="`.txt` files with `<TICKER>`, `<DATE>` as YYYYMMDD and `<VOL>`; prices are adjusted already.",
        headings=(_with("ticker", "per", "date", "time", "open", "high", "low", "close", "vol"),),
        columns={"date": "date"},
    ),
    Vendor(
        name="alpha vantage",
        about="`TIME_SERIES_DAILY_ADJUSTED` as CSV: raw prices with adjusted close, dividend and split coefficient.",
        headings=(
            _with("timestamp", "open", "high", "low", "close", "adjusted_close", "volume", "split_coefficient"),
            _with("timestamp", "open", "high", "low", "close", "volume"),
        ),
    ),
    Vendor(
        name="tiingo",
        about="Daily prices with `adjClose`, `divCash` and `splitFactor`; dates are midnights in UTC.",
        headings=(_with("date", "close", "high", "low", "open", "volume", "adjclose", "divcash", "splitfactor"),),
    ),
    Vendor(
        name="eodhd",
        about="End-of-day CSV with `Adjusted_close`; bulk files have `Code`.",
        headings=(_with("date", "open", "high", "low", "close", "adjusted_close", "volume"),),
    ),
    Vendor(
        name="polygon",
        about="Flat files of day aggregates, one a session or one long table, `window_start` in ns; unadjusted.",
        headings=(_with("ticker", "volume", "open", "close", "high", "low", "window_start"),),
        columns={"date": "window_start"},
        tables=True,
    ),
    Vendor(
        name="interactive brokers",
        about="Historical bars with `average` (the vwap) and `barCount`; US volumes are in lots of 100 shares.",
        headings=(
            _with("date", "open", "high", "low", "close", "volume", "average", "barcount"),
            _with("date", "open", "high", "low", "close", "volume", "wap"),
        ),
    ),
    Vendor(
        name="baostock",
        about="`query_history_k_data_plus` with `preclose` (used for adjustment) and `tradestatus` (0: not tradable).",
        headings=(_with("date", "code", "open", "high", "low", "close", "preclose", "volume"),),
    ),
    Vendor(
        name="nse bhavcopy",
        about="One file a session, the old, the full and the UDiFF form; series EQ and BE; `PREVCLOSE` is used.",
        headings=(
            _with("symbol", "series", "open", "high", "low", "close", "prevclose", "tottrdqty", "timestamp"),
            _with("symbol", "series", "date1", "prev_close", "open_price", "high_price", "low_price", "close_price"),
            _with("traddt", "tckrsymb", "sctysrs", "opnpric", "hghpric", "lwpric", "clspric", "ttltradgvol"),
        ),
        columns={"close": "close_price", "date": "traddt", "symbol": "tckrsymb"},
        series=("eq", "be"),
        tables=True,
    ),
    Vendor(
        name="qlib csv",
        about="Qlib's collectors, with `factor`; normalised files are noticed (prices adjusted already) and kept so.",
        headings=(_with("date", "symbol", "open", "high", "low", "close", "volume", "factor"),),
    ),
    Vendor(
        name="qlib bin",
        about="Qlib's binary directory (`calendars/day.txt`, `features/<symbol>/<field>.day.bin`), adjusted already.",
        headings=(_with("qlib_bin"),),
    ),
)


def recognised(names: Sequence[str], like: str) -> Vendor:
    """Return the vendor whose heading these names are, the one asked for, or `OTHER`.

    Args:
        names: Column names; of a heading of two lines `Close|AAPL`.
        like: A vendor's name, or `auto`.

    Raises:
        DataError: There is no vendor of that name.
    """
    if like != "auto":
        return named(like)
    if any("|" in name for name in names):
        return named("yfinance")
    spelt = {normal(name) for name in names}
    found = [vendor for vendor in VENDORS if any(heading <= spelt for heading in vendor.headings)]
    return max(found, key=lambda vendor: max(len(one) for one in vendor.headings if one <= spelt), default=OTHER)


def named(name: str) -> Vendor:
    """Return the vendor of a name, however its blanks are written.

    Raises:
        DataError: There is none.
    """
    for vendor in (*VENDORS, OTHER):
        if normal(vendor.name).replace("_", "") == normal(name).replace("_", ""):
            return vendor
    raise DataError(f"unknown vendor {name!r}; recipes: {', '.join(vendor.name for vendor in VENDORS)}")


def vendors_page() -> str:
    """Return the table of docs/data.md."""
    lines = ["| `--like` | what is read |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{vendor.name}` | {vendor.about} |" for vendor in VENDORS)]) + "\n"
