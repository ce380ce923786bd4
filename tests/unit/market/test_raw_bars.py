import contextlib
import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from strategies.errors import DataError
from strategies.market import raw_bars, tables
from strategies.market.raw_bars import open_source
from tests.support.market import make_bars, write_raw

HEADING = "date,open,high,low,close,volume\n"
ROW = "2013-01-02,1,2,0.5,1.5,100\n"


def read(path, symbol, chosen=None, adjustment="auto"):
    return open_source(path, chosen or {}, adjustment).read(symbol)


def text_file(folder, text, name="AAPL.csv"):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def parquet_file(folder, columns, name="AAPL.parquet"):
    path = folder / name
    parquet.write_table(pa.table(columns), path)
    return path


def test_folder_of_files_names_symbols_by_file(tmp_path):
    write_raw(tmp_path, {"BF.B": make_bars(), "ALL": make_bars(), "now": make_bars()})
    text_file(tmp_path, "not bars", "README.md")
    text_file(tmp_path, "not bars", ".hidden.csv")

    assert open_source(tmp_path, {}, "auto").symbols == ("ALL", "BF.B", "NOW")


def test_csv_gzip_and_parquet_hold_the_same_bars(tmp_path):
    frame = make_bars(vwap=True)
    write_raw(tmp_path, {"A": frame})
    (tmp_path / "B.csv.gz").write_bytes(gzip.compress((tmp_path / "A.csv").read_bytes()))
    frame.to_parquet(tmp_path / "C.parquet")

    source = open_source(tmp_path, {}, "auto")

    for symbol in ("A", "B", "C"):
        bars = source.read(symbol)
        assert bars.rows.tolist() == list(range(1, 91))
        np.testing.assert_array_equal(bars.dates, frame["date"].to_numpy().astype("datetime64[D]"))
        for name, values in bars.values.items():
            np.testing.assert_array_equal(values, frame[name].to_numpy())


def test_one_table_is_split_by_symbol_in_file_order(tmp_path):
    frames = [make_bars(seed=seed).assign(Ticker=symbol) for seed, symbol in enumerate(("NA", "BRK.B"))]
    table = pd.concat(frames).sort_values("date", kind="stable")
    table.to_csv(tmp_path / "all.csv", index=False)

    source = open_source(tmp_path / "all.csv", {}, "auto")

    assert source.symbols == ("BRK.B", "NA")
    assert source.read("NA").rows.tolist() == list(range(1, 181, 2))
    np.testing.assert_array_equal(source.read("BRK.B").values["close"], frames[1]["close"].to_numpy())


def test_files_of_sessions_are_put_together_by_symbol_and_rows_keep_their_file(tmp_path):
    frames = {symbol: make_bars(seed=seed, sessions=6) for seed, symbol in enumerate(("B", "A", "C"))}
    for at in range(6):
        day = pd.concat(
            [frame.iloc[[at]].assign(symbol=name) for name, frame in frames.items() if (at, name) != (2, "A")]
        )
        day = day.astype({"open": object})
        if at == 4:
            day.loc[day["symbol"].eq("C"), "open"] = "-"
        # From the fourth session on the files have one column more.
        (day if at < 3 else day.assign(vwap=5.0)).to_csv(tmp_path / f"day_2013010{at}.csv", index=False)

    source = open_source(tmp_path, {}, "auto")

    assert source.symbols == ("A", "B", "C")
    bars = source.read("A")
    np.testing.assert_array_equal(bars.values["close"], frames["A"]["close"].drop(2).to_numpy())
    assert [bars.file_of(row) for row in range(5)] == [f"day_2013010{at}.csv" for at in (0, 1, 3, 4, 5)]
    assert bars.rows.tolist() == [2] * 2 + [2] * 3
    np.testing.assert_array_equal(bars.values["vwap"], [np.nan] * 2 + [5.0] * 3)
    assert source.read("C").unreadable == {4: ("open", "-")}
    assert source.read("B").unreadable == {}


@pytest.mark.parametrize("kind", [str, "category"])
def test_long_parquet_table_is_read_column_by_column_as_any_other(tmp_path, monkeypatch, kind):
    frames = [make_bars(seed=seed, vwap=True).assign(ticker=name) for seed, name in enumerate(("B", "A"))]
    table = pd.concat(frames).sort_values("date", kind="stable").astype({"ticker": kind})
    table.to_parquet(tmp_path / "all.parquet", row_group_size=50, index=False)
    whole = open_source(tmp_path / "all.parquet", {}, "auto")
    monkeypatch.setattr(tables, "LONG", 100)

    source = open_source(tmp_path / "all.parquet", {}, "auto")

    assert source.symbols == whole.symbols == ("A", "B")
    for symbol in source.symbols:
        one, other = source.read(symbol), whole.read(symbol)
        np.testing.assert_array_equal(one.dates, other.dates)
        np.testing.assert_array_equal(one.rows, other.rows)
        assert set(one.values) == set(other.values)
        for name in one.values:
            np.testing.assert_array_equal(one.values[name], other.values[name])


def test_one_column_may_be_two_fields(tmp_path):
    path = text_file(tmp_path, HEADING + ROW)

    bars = read(path, "AAPL", {"close": "close", "vwap": "close", "volume": "volume", "halted": "volume"})

    assert bars.values["vwap"].tolist() == bars.values["close"].tolist() == [1.5]


def test_single_file_without_symbol_column_is_one_symbol(tmp_path):
    path = text_file(tmp_path, HEADING + ROW)

    assert open_source(path, {}, "auto").symbols == ("AAPL",)


@pytest.mark.parametrize(
    "written", ["2013-01-02", "20130102", "2013-01-02 00:00:00", "2013-01-02T05:00:00Z", "2013-01-02 09:30:00-05:00"]
)
def test_dates_are_read_as_written(tmp_path, written):
    path = text_file(tmp_path, HEADING + ROW.replace("2013-01-02", written))

    assert read(path, "AAPL").dates.tolist() == [np.datetime64("2013-01-02").astype(object)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([15707], pa.date32()),
        pa.array([20130102], pa.int64()),
        pa.array([pd.Timestamp("2013-01-02 00:00")], pa.timestamp("ns")),
        pa.array([pd.Timestamp("2013-01-02 05:00", tz="UTC")], pa.timestamp("us", "UTC")),
        pa.array([pd.Timestamp("2013-01-02 05:00", tz="UTC")], pa.timestamp("ms", "America/New_York")),
        pa.array([pd.Timestamp("2013-01-03 02:00", tz="UTC")], pa.timestamp("ms", "America/New_York")),
        pa.array(["2013-01-02"]).dictionary_encode(),
    ],
)
def test_parquet_dates_of_every_type_are_read(tmp_path, column):
    numbers = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1], pa.int32()))
    path = parquet_file(tmp_path, {"date": column, **numbers})

    assert read(path, "AAPL").dates.astype(str).tolist() == ["2013-01-02"]


def test_missing_cells_become_nan_and_nat(tmp_path):
    bars = read(text_file(tmp_path, HEADING + ",,NA,nan,null,\n"), "AAPL")

    assert np.isnat(bars.dates).all()
    assert all(np.isnan(values).all() for values in bars.values.values())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "AAPL.csv: cannot be read: Empty CSV file"),
        (HEADING, "AAPL.csv: has no rows"),
        ("a,b\n1,2\n", "no column for date, open"),
        (b"\x00" * 100, "AAPL.csv"),
    ],
)
def test_unreadable_text_is_refused_with_a_sentence(tmp_path, text, sentence):
    path = text_file(tmp_path, text)

    with pytest.raises(DataError, match=sentence):
        read(path, "AAPL")


@pytest.mark.parametrize(
    ("line", "cell"),
    [
        (ROW.replace("1.5", "cheap"), ("close", "cheap")),
        (ROW.replace("1.5", "-"), ("close", "-")),
        (ROW.replace("1.5", "inf"), ("close", "inf")),
        (ROW.replace(",100", ",1e400"), ("volume", "inf")),
        (ROW.replace("2013-01-02", "2013-02-30"), ("date", "2013-02-30")),
        (ROW.replace("2013-01-02", "02/01/2013"), ("date", "02/01/2013")),
        (ROW.replace("2013-01-02", "soon"), ("date", "soon")),
        ("2013-01-02,1\n", ("whole row", "2013-01-02,1")),
        ("2013-01-02,1,2,0.5,1.5,100,7\n", ("whole row", "2013-01-02,1,2,0.5,1.5,100,7")),
        (b"2013-01-02,\xff\xfe,2,0.5,1.5,100\n", ("open", "\ufffd\ufffd")),
    ],
)
def test_unreadable_cell_is_named_with_its_column_and_costs_its_row(tmp_path, line, cell):
    good = [ROW.replace("01-02", f"01-0{day}") for day in (3, 4)]
    content = (
        HEADING.encode() + good[0].encode() + (line if isinstance(line, bytes) else line.encode()) + good[1].encode()
    )

    bars = read(text_file(tmp_path, content), "AAPL")

    [at] = bars.unreadable
    assert bars.unreadable[at] == cell
    assert bars.rows[at] == 2
    others = [row for row in range(3) if row != at]
    assert bars.rows[others].tolist() == [1, 3]
    assert bars.dates[others].astype(str).tolist() == ["2013-01-03", "2013-01-04"]
    np.testing.assert_array_equal(bars.values["close"][others], [1.5, 1.5])


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"close": pa.array(["cheap"])}, "close"),
        ({"close": pa.array([True])}, "close"),
        ({"close": pa.array([np.inf])}, "close"),
        ({"volume": pa.array([2**62 + 1], pa.int64())}, "volume"),
        ({"date": pa.array([1.5])}, "date"),
        ({"date": pa.array([["2013-01-02"]])}, "date"),
    ],
)
def test_parquet_cells_of_wrong_types_are_named(tmp_path, change, column):
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0]))
    parquet_file(tmp_path, {"date": pa.array(["2013-01-02"]), **columns, **change})

    assert read(tmp_path, "AAPL").unreadable[0][0] == column


def test_file_with_rows_of_another_symbol_is_refused(tmp_path):
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0]))
    parquet_file(tmp_path, {"date": pa.array(["2013-01-02"]), "symbol": pa.array(["IBM"]), **columns})

    with pytest.raises(DataError, match="holds rows of 'IBM', its name says AAPL"):
        read(tmp_path, "AAPL")


def test_truncated_parquet_is_refused_by_name(tmp_path):
    make_bars().to_parquet(tmp_path / "AAPL.parquet")
    content = (tmp_path / "AAPL.parquet").read_bytes()

    for size in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "AAPL.parquet").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"AAPL\.parquet: cannot be read"):
            read(tmp_path, "AAPL")


@pytest.mark.parametrize("names", [["NOTES.txt"], ["README.md"], []])
def test_folder_without_a_file_of_bars_is_refused(tmp_path, names):
    for name in names:
        text_file(tmp_path, "what to do\n", name)

    with pytest.raises(DataError, match=r"holds no \.csv"):
        open_source(tmp_path, {}, "auto")


def test_files_that_are_no_symbols_are_named_beside_the_others(tmp_path):
    for name in ("aapl.csv", "AAPL.parquet", "-X.csv", "IBM.csv"):
        text_file(tmp_path, HEADING + ROW, name)

    source = open_source(tmp_path, {}, "auto")

    assert source.symbols == ("IBM",)
    assert set(source.refused) == {"aapl.csv", "AAPL.parquet", "-X.csv"}
    assert "are both symbol AAPL" in source.refused["aapl.csv"]
    assert "symbol was '-X'" in source.refused["-X.csv"]


@pytest.mark.parametrize(
    ("symbols", "sentence"),
    [
        (["../etc/passwd"], "symbol was '../etc/passwd'"),
        (["aapl", "AAPL"], "is written in two ways"),
        ([""], "symbol was ''"),
    ],
)
def test_rows_with_bad_symbols_are_named_beside_the_others(tmp_path, symbols, sentence):
    text = "symbol," + HEADING + "".join(f"{symbol},{ROW}" for symbol in [*symbols, "IBM"])

    source = open_source(text_file(tmp_path, text, "all.csv"), {}, "auto")

    assert source.symbols == ("IBM",)
    [reason] = source.refused.values()
    assert sentence in reason


def test_table_rows_without_symbol_are_named(tmp_path):
    numbers = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0, 1.0]))
    path = parquet_file(tmp_path, {"date": pa.array(["2013-01-02"] * 2), "symbol": ["A", None], **numbers})

    source = open_source(path, {}, "auto")

    assert source.symbols == ("A",)
    assert list(source.refused) == ["AAPL.parquet, row 2"]


def test_symbols_that_are_no_text_are_refused(tmp_path):
    numbers = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0]))
    path = parquet_file(tmp_path, {"date": pa.array(["2013-01-02"]), "symbol": [["A"]], **numbers})

    with pytest.raises(DataError, match=r"symbols are list.*, expected text"):
        open_source(path, {}, "auto")


@pytest.mark.parametrize("name", ["AAPL.csv", "AAPL.csv.gz", "AAPL.parquet"])
def test_files_beyond_the_row_limit_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(raw_bars, "MAX_SYMBOL_ROWS", 89)
    frame = make_bars(sessions=90)
    frame.to_parquet(tmp_path / name) if name.endswith("parquet") else frame.to_csv(tmp_path / name, index=False)

    with pytest.raises(DataError, match="has 90 rows or more, at most 89 are read"):
        read(tmp_path, "AAPL")


def test_one_symbol_of_a_table_beyond_the_row_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_bars, "MAX_SYMBOL_ROWS", 89)
    make_bars(sessions=90).assign(symbol="A").to_csv(tmp_path / "all.csv", index=False)

    with pytest.raises(DataError, match="at most 89 are read"):
        open_source(tmp_path / "all.csv", {}, "auto")


def test_file_beyond_the_size_limit_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_bars, "MAX_BYTES", 10)

    with pytest.raises(DataError, match="bytes, at most 10 are read"):
        read(text_file(tmp_path, HEADING + ROW), "AAPL")


@pytest.mark.parametrize("name", ["absent", "AAPL.doc"])
def test_path_that_is_nothing_readable_is_refused(tmp_path, name):
    text_file(tmp_path, HEADING + ROW, "AAPL.doc")

    with pytest.raises(DataError, match=name):
        open_source(tmp_path / name, {}, "auto")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: (HEADING + text).encode())))
def test_any_bytes_are_read_or_refused_with_a_data_error(tmp_path, content):
    path = text_file(tmp_path, content)

    with contextlib.suppress(DataError):
        bars = read(path, "AAPL")
        assert len(bars.dates) == len(bars.rows) > 0
