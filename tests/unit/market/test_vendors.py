"""Vendors: each one's heading in a small file with the same three bars, and what becomes of it."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import yaml

from strategies.errors import DataError
from strategies.market.appending import append_bars
from strategies.market.calendar import SessionCalendar
from strategies.market.importing import ImportOptions, import_bars
from strategies.market.lives import read_lives
from strategies.market.raw_bars import open_source
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.market.vendors import VENDORS
from tests.support.market import make_bars, write_raw

DAYS = ("2024-06-26", "2024-06-27", "2024-06-28")
#: open, high, low, close, volume.
BARS = (
    (100.0, 101.5, 99.0, 100.84, 124277),
    (101.33, 101.8, 100.33, 101.08, 121713),
    (100.7, 101.06, 99.79, 99.86, 157356),
)


def lines(heading, row):
    """Return a file's text; `row` is given day, open, high, low, close and volume."""
    return "\n".join([*heading.splitlines(), *(row(day, *bar) for day, bar in zip(DAYS, BARS, strict=True))]) + "\n"


def ny_ns(day):
    return int(np.datetime64(day, "ns").astype(np.int64)) + 4 * 3_600_000_000_000


FILES = {
    "yfinance": {
        "AAPL.csv": lines(
            "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,",
            lambda d, o, h, low, c, v: f"{d},{c},{h},{low},{o},{v}",
        )
    },
    "stooq": {
        "aapl.us.txt": lines(
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
            lambda d, o, h, low, c, v: f"AAPL.US,D,{d.replace('-', '')},000000,{o},{h},{low},{c},{v},0",
        )
    },
    "alpha vantage": {
        "AAPL.csv": lines(
            "timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{c},{v},0.0000,1.0",
        )
    },
    "tiingo": {
        "AAPL.csv": lines(
            "date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor",
            lambda d, o, h, low, c, v: f"{d}T00:00:00.000Z,{c},{h},{low},{o},{v},{c},{h},{low},{o},{v},0.0,1.0",
        )
    },
    "eodhd": {
        "AAPL.csv": lines(
            "Date,Open,High,Low,Close,Adjusted_close,Volume",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{c},{v}",
        )
    },
    "polygon": {
        "2024-06.csv": lines(
            "ticker,volume,open,close,high,low,window_start,transactions",
            lambda d, o, h, low, c, v: f"AAPL,{v},{o},{c},{h},{low},{ny_ns(d)},100",
        )
    },
    "interactive brokers": {
        "AAPL.csv": lines(
            "date,open,high,low,close,volume,average,barCount",
            lambda d, o, h, low, c, v: f"{d.replace('-', '')},{o},{h},{low},{c},{v},{c},55",
        )
    },
    "baostock": {
        "sh.600000.csv": "date,code,open,high,low,close,preclose,volume,amount,adjustflag,turn,tradestatus,pctChg,isST"
        "\n"
        "2024-06-26,sh.600000,100.0,101.5,99.0,100.84,100.5,124277,1.0,3,0.1,1,0.3,0\n"
        "2024-06-27,sh.600000,101.33,101.8,100.33,101.08,100.84,121713,1.0,3,0.1,1,0.2,0\n"
        "2024-06-28,sh.600000,101.08,101.08,101.08,101.08,101.08,0,0,3,0.1,0,0,0\n"
    },
    "nse bhavcopy": {
        f"sec_bhavdata_full_{day[8:]}{day[5:7]}{day[:4]}.csv": (
            "SYMBOL, SERIES, DATE1, PREV_CLOSE, OPEN_PRICE, HIGH_PRICE, LOW_PRICE, LAST_PRICE, CLOSE_PRICE, AVG_PRICE, "
            "TTL_TRD_QNTY, TURNOVER_LACS, NO_OF_TRADES, DELIV_QTY, DELIV_PER\n"
            + "".join(
                f"{name}, {series}, {day[8:]}-Jun-2024, {before}, {o}, {h}, {low}, {c}, {c}, {c}, {v}, 1.0, 5, -, -\n"
                for name, series in (("M&M", "EQ"), ("M&M", "N1"), ("TCS", "EQ"))
            )
        )
        for day, before, (o, h, low, c, v) in zip(DAYS, (100.5, 100.84, 101.08), BARS, strict=True)
    },
    "qlib csv": {
        "AAPL.csv": lines(
            "date,symbol,open,close,high,low,volume,factor,change",
            lambda d, o, h, low, c, v: f"{d},AAPL,{o},{c},{h},{low},{v},1.0,0.0",
        )
    },
}


def write(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("vendor", FILES)
@pytest.mark.parametrize("asked", [True, False])
def test_files_of_a_vendor_become_bars(tmp_path, vendor, asked):
    calendar = {"baostock": "XSHG", "nse bhavcopy": "XBOM"}.get(vendor, "XNYS")
    options = ImportOptions(calendar=calendar, like=vendor if asked else "auto")

    report = import_bars(
        write(tmp_path / "raw", FILES[vendor]), tmp_path / "data", run_date=date(2024, 6, 28), options=options
    )

    assert (report.vendor, report.quarantined, dict(report.refused)) == (vendor, 0, {})
    snapshot = latest_snapshot(tmp_path / "data")
    panel = load_panel(snapshot, SessionCalendar(calendar))
    assert panel.sessions.astype(str).tolist() == list(DAYS)
    symbols = {"stooq": ("AAPL.US",), "baostock": ("SH.600000",), "nse bhavcopy": ("M&M", "TCS")}
    assert panel.symbols == symbols.get(vendor, ("AAPL",))
    closes = [100.84, 101.08, 101.08 if vendor == "baostock" else 99.86]
    for row in range(len(panel.symbols)):
        assert panel.fields["close"][row].tolist() == closes
    assert ("halted" in panel.marks) == (vendor == "baostock")


NSE_OLD = "SYMBOL,SERIES,OPEN,HIGH,LOW,CLOSE,LAST,PREVCLOSE,TOTTRDQTY,TOTTRDVAL,TIMESTAMP,TOTALTRADES,ISIN,\n"
NSE_UDIFF = (
    "TradDt,BizDt,Sgmt,Src,FinInstrmTp,FinInstrmId,ISIN,TckrSymb,SctySrs,XpryDt,FininstrmActlXpryDt,StrkPric,OptnTp,"
    "FinInstrmNm,OpnPric,HghPric,LwPric,ClsPric,LastPric,PrvsClsgPric,UndrlygPric,SttlmPric,OpnIntrst,"
    "ChngInOpnIntrst,TtlTradgVol,TtlTrfVal,TtlNbOfTxsExctd,SsnId,NewBrdLotQty,Rmks,Rsvd1,Rsvd2,Rsvd3,Rsvd4\n"
)
STOOQ = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"


def sessions_of(heading, name, row, symbols):
    """Return a file a session; `row` is given symbol, day, close before, open, high, low, close, volume."""
    before = (100.5, 100.84, 101.08)
    return {
        name.format(day=day.replace("-", "")): heading + "".join(row(symbol, day, last, *bar) for symbol in symbols)
        for day, last, bar in zip(DAYS, before, BARS, strict=True)
    }


FORMS = {
    "nse bhavcopy, old": (
        "nse bhavcopy",
        sessions_of(
            NSE_OLD,
            "cm{day}bhav.csv",
            lambda s, d, b, o, h, low, c, v: (
                f"{s[0]},{s[1]},{o},{h},{low},{c},{c},{b},{v},1.0,{d[8:]}-JUN-2024,5,INE,\n"
            ),
            (("M&M", "EQ"), ("TCS", "BE"), ("TCS", "N1")),
        ),
    ),
    "nse bhavcopy, UDiFF": (
        "nse bhavcopy",
        sessions_of(
            NSE_UDIFF,
            "BhavCopy_NSE_CM_0_0_0_{day}_F_0000.csv",
            lambda s, d, b, o, h, low, c, v: (
                f"{d},{d},CM,NSE,STK,1,INE,{s[0]},{s[1]},,,,,NAME,{o},{h},{low},{c},{c},{b},,{c},,,"
                f"{v},1.0,5,F1,1,,,,,\n"
            ),
            (("M&M", "EQ"), ("TCS", "EQ"), ("TCS", "GB")),
        ),
    ),
    "stooq, sessions of many tickers": (
        "stooq",
        sessions_of(
            STOOQ,
            "{day}_d.txt",
            lambda s, d, _b, o, h, low, c, v: f"{s},D,{d.replace('-', '')},000000,{o},{h},{low},{c},{v},0\n",
            ("AAPL.US", "BRK-B.US"),
        ),
    ),
    "any, UTF-16": (
        "any",
        {
            "AAPL.csv": (
                "\ufeff" + lines("Date;Open;High;Low;Close;Volume", lambda *bar: ";".join(map(str, bar)))
            ).encode("utf-16-le")
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_vendors_files_become_the_same_bars(tmp_path, form):
    vendor, files = FORMS[form]
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    calendar = "XBOM" if vendor == "nse bhavcopy" else "XNYS"

    report = import_bars(
        folder, tmp_path / "data", run_date=date(2024, 6, 28), options=ImportOptions(calendar=calendar)
    )

    assert (report.vendor, report.quarantined, dict(report.refused)) == (vendor, 0, {})
    panel = load_panel(latest_snapshot(tmp_path / "data"), SessionCalendar(calendar))
    symbols = {"stooq": ("AAPL.US", "BRK-B.US"), "nse bhavcopy": ("M&M", "TCS")}
    assert panel.symbols == symbols.get(vendor, ("AAPL",))
    assert panel.sessions.astype(str).tolist() == list(DAYS)
    for at, name in enumerate(("open", "high", "low", "close", "volume")):
        assert panel.fields[name].tolist() == [[bar[at] for bar in BARS]] * len(panel.symbols)


def test_parquet_of_a_download_of_many_tickers_is_one_symbol_each(tmp_path):
    frames = {
        name: make_bars(seed=seed).rename(columns=str.title).set_index("Date")
        for seed, name in enumerate(("MSFT", "AAPL"))
    }
    wide = pd.concat(frames, axis=1).swaplevel(axis=1)
    wide.loc[wide.index[4], (slice(None), "AAPL")] = np.nan
    wide.to_parquet(tmp_path / "prices.parquet")

    source = open_source(tmp_path / "prices.parquet", {}, "auto")

    assert (source.vendor.name, source.symbols) == ("yfinance", ("AAPL", "MSFT"))
    np.testing.assert_array_equal(source.read("MSFT").values["close"], frames["MSFT"]["Close"].to_numpy())
    np.testing.assert_array_equal(
        source.read("AAPL").values["close"], frames["AAPL"]["Close"].drop(wide.index[4]).to_numpy()
    )


def test_session_in_lots_after_shares_is_held_back(tmp_path):
    shares = make_bars(sessions=90).assign(volume=lambda frame: 1e6 + np.arange(len(frame)) * 777.0)
    source = write_raw(tmp_path / "raw", dict.fromkeys(("AAPL", "IBM", "MSFT"), shares.iloc[:89]))
    import_bars(source, tmp_path / "data", run_date=date(2014, 1, 2))
    lots = shares.iloc[[89]].assign(volume=shares["volume"] / 100, average=shares["close"], barCount=55)
    pd.concat([lots.assign(symbol=name) for name in ("AAPL", "IBM", "MSFT")]).to_csv(tmp_path / "day.csv", index=False)

    with pytest.raises(DataError, match="volume_unit"):
        append_bars(tmp_path / "day.csv", tmp_path / "data", run_date=date(2014, 1, 3))


def test_every_recipe_has_a_file_here():
    assert {*FILES, "qlib bin"} == {vendor.name for vendor in VENDORS}


def test_frame_of_many_tickers_is_one_symbol_each(tmp_path):
    text = (
        "Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume\nTicker"
        + ",AAPL,MSFT" * 5
        + "\nDate"
        + "," * 10
        + "\n"
    )
    for day, (o, h, low, c, v) in zip(DAYS, BARS, strict=True):
        text += f"{day},{c},{2 * c},{h},{2 * h},{low},{2 * low},{o},{2 * o},{v},{v}\n"
    text += "2024-07-01,,50,,51,,49,,50,,7\n"
    (tmp_path / "all.csv").write_text(text)

    source = open_source(tmp_path / "all.csv", {}, "auto")

    assert (source.vendor.name, source.symbols) == ("yfinance", ("AAPL", "MSFT"))
    assert source.read("AAPL").dates.astype(str).tolist() == list(DAYS)
    assert source.read("MSFT").values["close"].tolist() == [201.68, 202.16, 199.72, 50.0]


def test_binary_directory_of_qlib_is_read(tmp_path):
    (tmp_path / "q" / "calendars").mkdir(parents=True)
    (tmp_path / "q" / "calendars" / "day.txt").write_text("\n".join(("2024-06-25", *DAYS)))
    folder = tmp_path / "q" / "features" / "aapl"
    folder.mkdir(parents=True)
    for at, name in enumerate(("open", "high", "low", "close", "volume")):
        np.array([1.0, *(bar[at] for bar in BARS)], "<f4").tofile(folder / f"{name}.day.bin")
    np.array([1.0, 0.5, 0.5, 0.5], "<f4").tofile(folder / "factor.day.bin")

    report = import_bars(tmp_path / "q", tmp_path / "data", run_date=date(2024, 6, 28))

    assert (report.vendor, report.adjustment, report.symbols, report.accepted) == ("qlib bin", "adjusted", 1, 3)
    panel = load_panel(latest_snapshot(tmp_path / "data"), SessionCalendar("XNYS"), fields=("factor",))
    assert panel.fields["close"][0].tolist() == [float(np.float32(bar[3])) for bar in BARS]
    assert panel.fields["factor"][0].tolist() == [0.5] * 3
    np.array([9.0, 1, 1, 1, 1], "<f4").tofile(folder / "close.day.bin")
    with pytest.raises(DataError, match="the calendar has 4"):
        open_source(tmp_path / "q", {}, "auto")


def test_semicolons_and_decimal_commas_are_read(tmp_path):
    (tmp_path / "SAP.csv").write_text(
        "Datum;x\n"
        if False
        else "Date;Open;High;Low;Close;Volume\n28.06.2024;1.100,5;1.110,0;1.090,25;1.105,75;12.345\n"
    )

    bars = open_source(tmp_path / "SAP.csv", {}, "auto").read("SAP")

    assert [bars.values[name][0] for name in ("open", "low", "close", "volume")] == [1100.5, 1090.25, 1105.75, 12345.0]
    assert bars.dates.astype(str).tolist() == ["2024-06-28"]


def test_mapping_of_lives_parts_a_ticker_and_joins_a_rename(tmp_path):
    frame = make_bars(sessions=40)
    days = [str(day.date()) for day in frame["date"]]
    raw = write_raw(tmp_path / "raw", {"OLD": frame.iloc[:20], "NEW": frame.iloc[20:], "X": frame})
    (tmp_path / "lives.csv").write_text(
        f"symbol,first,last,name\nOLD,,{days[19]},NEW\nNEW,{days[20]},,NEW\nX,,{days[9]},X.1\nX,{days[30]},,X\n"
    )

    options = ImportOptions(lives=read_lives(tmp_path / "lives.csv"))
    report = import_bars(raw, tmp_path / "data", run_date=date(2014, 1, 2), options=options)

    files = latest_snapshot(tmp_path / "data").manifest.files
    assert {name: file.rows for name, file in files.items()} == {"NEW": 40, "X": 10, "X.1": 10}
    assert dict(report.reasons)["life_ended"] == 20
    (tmp_path / "bad.csv").write_text(f"symbol,first,last,name\nX,,{days[9]},A\nX,{days[5]},,B\n")
    with pytest.raises(DataError, match="overlap"):
        read_lives(tmp_path / "bad.csv")


def test_snapshot_keeps_the_definition_of_its_calendar(tmp_path):
    (tmp_path / "data" / "calendars").mkdir(parents=True)
    definition = {"base": "XBOM", "added": [date(2024, 1, 20)]}
    path = tmp_path / "data" / "calendars" / "MINE.yaml"
    path.write_text(yaml.safe_dump(definition))
    (tmp_path / "A.csv").write_text(
        "date,open,high,low,close,volume\n2024-01-19,1,2,1,2,5\n2024-01-20,2,2,1,2,6\n2024-01-23,2,2,1,2,7\n"
    )

    report = import_bars(
        tmp_path / "A.csv", tmp_path / "data", run_date=date(2024, 1, 24), options=ImportOptions(calendar="MINE")
    )
    path.unlink()

    assert (report.accepted, report.quarantined) == (3, 0)
    snapshot = latest_snapshot(tmp_path / "data")
    assert load_panel(snapshot, snapshot.open_calendar()).sessions.astype(str).tolist() == [
        "2024-01-19",
        "2024-01-20",
        "2024-01-23",
    ]
