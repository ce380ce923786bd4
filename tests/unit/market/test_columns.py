import re

import pytest

from strategies.errors import DataError
from strategies.market.columns import adjustment_of, find_columns
from strategies.market.symbols import checked_symbol, file_stem, symbol_of_stem

BARE = ("date", "open", "high", "low", "close", "volume")


@pytest.mark.parametrize(
    "names",
    [
        ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"),
        ("timestamp", "open", "high", "low", "close", "volume", "adj_close"),
        ("DATE", "Adj. Close", "OPEN", "HIGH", "LOW", "CLOSE", "VOL"),
        ("t-ignored", "day", "o", "h", "l", "c", "v", "adjClose"),
    ],
)
def test_common_names_of_vendors_are_recognised(names):
    columns = find_columns(names, {}, "a.csv")

    assert set(columns) == {*BARE, "adj_close"}
    assert set(columns.values()) <= set(names)


def test_the_better_alias_wins_over_the_worse():
    columns = find_columns((*BARE, "timestamp", "Name", "ticker"), {}, "a.csv")

    assert (columns["date"], columns["symbol"]) == ("date", "ticker")


def test_chosen_column_overrides_the_aliases():
    columns = find_columns((*BARE, "last"), {"close": "last"}, "a.csv")

    assert columns["close"] == "last"


@pytest.mark.parametrize(
    ("names", "chosen", "sentence"),
    [
        (BARE[:-1], {}, "a.csv: no column for volume; the columns are date, open"),
        ((*BARE, "Close"), {}, "columns close, Close could all be close"),
        (BARE, {"close": "last"}, "0 columns are named 'last', 1 is needed"),
        (BARE, {"price": "close"}, "unknown field 'price'"),
        (BARE, {"open": "close"}, "no column for close"),
        (tuple(f"c{number}" for number in range(1000)), {}, "and 980 more"),
    ],
)
def test_tables_that_do_not_say_enough_are_refused(names, chosen, sentence):
    with pytest.raises(DataError, match=sentence):
        find_columns(names, chosen, "a.csv")


@pytest.mark.parametrize(
    ("extra", "asked", "adjustment"),
    [
        ((), "auto", "none"),
        (("factor",), "auto", "factor"),
        (("adj_close",), "auto", "adj_close"),
        (("adj_close", "factor"), "factor", "factor"),
        (("adj_close", "factor"), "auto", "auto"),
        (("dividend",), "auto", "auto"),
        (("split", "preclose"), "actions", "actions"),
        (("factor",), "adjusted", "adjusted"),
        (("adj_close",), "none", "none"),
    ],
)
def test_adjustment_follows_the_column_there_is(extra, asked, adjustment):
    assert adjustment_of({name: name for name in (*BARE, *extra)}, asked, "a.csv") == adjustment


@pytest.mark.parametrize(
    ("extra", "asked", "sentence"),
    [
        ((), "actions", "no column of splits, dividends or previous closes"),
        ((), "factor", "no column for factor"),
        ((), "split", "adjustment was 'split', must be one of auto"),
    ],
)
def test_adjustment_that_is_not_clear_is_refused(extra, asked, sentence):
    with pytest.raises(DataError, match=sentence):
        adjustment_of({name: name for name in (*BARE, *extra)}, asked, "a.csv")


@pytest.mark.parametrize(
    "symbol",
    [
        "A",
        "BF.B",
        "BRK-B",
        "^GSPC",
        "EURUSD=X",
        "ALL",
        "NA",
        "_X",
        "0700.HK",
        "M&M",
        "BRK/B",
        "BRK B",
        "X:BTCUSD",
        "A" * 32,
    ],
)
def test_odd_but_real_symbols_are_kept(symbol):
    assert checked_symbol(symbol, "here") == symbol
    assert checked_symbol(symbol.lower(), "here") == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        ".",
        "..",
        "../ETC",
        "/A",
        "A\\B",
        "A  B",
        " A",
        "A,B",
        "A\n",
        "-RF",
        ".HID",
        "A\x00",
        "ÄÖ",
        "\xdf",
        "\ufb01",
        "\u0131",
        "A" * 33,
    ],
)
def test_text_that_is_unsafe_as_a_file_name_is_no_symbol(symbol):
    with pytest.raises(DataError, match="here: symbol was"):
        checked_symbol(symbol, "here")


@pytest.mark.parametrize(("written", "symbol"), [("TpA", "TpA"), ("TPA", "TPA"), ("tpa", "TPA"), ("BRKp", "BRKp")])
def test_case_is_kept_where_there_is_a_capital_letter(written, symbol):
    assert checked_symbol(written, "here") == symbol


@pytest.mark.parametrize("symbol", ["M&M", "BRK/B", "BRK B", "TpA", "^GSPC", "BF.B", "A", "../..A".strip("./"), "X:Y"])
def test_file_of_a_symbol_is_safe_and_states_it(symbol):
    stem = file_stem(symbol)

    assert re.fullmatch(r"[A-Z0-9.\-_^=$#%]+", stem) or symbol == stem
    assert "/" not in stem
    assert stem == stem.upper()
    assert symbol_of_stem(stem, "here") == symbol
