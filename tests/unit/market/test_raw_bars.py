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
from strategies.market import raw_bars
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
        (HEADING + ROW.replace("1.5", "cheap"), "invalid value 'cheap'"),
        (HEADING + ROW.replace("1.5", "inf"), "column close is infinite in row 1"),
        (HEADING + ROW.replace("2013-01-02", "02/01/2013"), "dates must be YYYY-MM-DD .*row 1 has '02/01/2013'"),
        (HEADING + ROW.replace("2013-01-02", "2013-02-30"), "dates must be YYYY-MM-DD"),
        (HEADING + "2013-01-02,1\n", "Expected 6 columns, got 2"),
        (HEADING.encode() + b"\xff\xfe,1,1,1,1,1\n", "cannot be read"),
        (b"\x00" * 100, "AAPL.csv"),
    ],
)
def test_unreadable_text_is_refused_with_a_sentence(tmp_path, text, sentence):
    path = text_file(tmp_path, text)

    with pytest.raises(DataError, match=sentence):
        read(path, "AAPL")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"close": pa.array(["1.5"])}, "column close holds string, expected numbers"),
        ({"close": pa.array([True])}, "column close holds bool, expected numbers"),
        ({"close": pa.array([np.inf])}, "column close is infinite in row 1"),
        ({"volume": pa.array([2**62 + 1], pa.int64())}, "column volume"),
        ({"date": pa.array([1.5])}, "dates must be YYYY-MM-DD"),
        ({"symbol": pa.array(["IBM"])}, "holds rows of 'IBM', its name says AAPL"),
    ],
)
def test_parquet_of_wrong_types_is_refused(tmp_path, change, sentence):
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0]))
    parquet_file(tmp_path, {"date": pa.array(["2013-01-02"]), **columns, **change})

    with pytest.raises(DataError, match=sentence):
        read(tmp_path, "AAPL")


def test_truncated_parquet_is_refused_by_name(tmp_path):
    make_bars().to_parquet(tmp_path / "AAPL.parquet")
    content = (tmp_path / "AAPL.parquet").read_bytes()

    for size in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "AAPL.parquet").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"AAPL\.parquet: cannot be read"):
            read(tmp_path, "AAPL")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["aapl.csv", "AAPL.parquet"], "are both symbol AAPL"),
        (["A B.csv"], "symbol was 'A B'"),
        (["NOTES.txt"], r"holds no \.csv"),
        ([], r"holds no \.csv"),
    ],
)
def test_folders_that_name_no_clear_symbols_are_refused(tmp_path, names, sentence):
    for name in names:
        text_file(tmp_path, HEADING + ROW, name)

    with pytest.raises(DataError, match=sentence):
        open_source(tmp_path, {}, "auto")


@pytest.mark.parametrize(
    ("symbols", "sentence"),
    [
        (["../etc/passwd"], "symbol was '../etc/passwd'"),
        (["aapl", "AAPL"], "is written in two ways"),
        ([""], "symbol was ''"),
    ],
)
def test_tables_with_bad_symbols_are_refused(tmp_path, symbols, sentence):
    text = "symbol," + HEADING + "".join(f"{symbol},{ROW}" for symbol in symbols)

    with pytest.raises(DataError, match=sentence):
        open_source(text_file(tmp_path, text, "all.csv"), {}, "auto")


def test_table_row_without_symbol_is_refused(tmp_path):
    numbers = dict.fromkeys(("open", "high", "low", "close", "volume"), pa.array([1.0, 1.0]))
    path = parquet_file(tmp_path, {"date": pa.array(["2013-01-02"] * 2), "symbol": ["A", None], **numbers})

    with pytest.raises(DataError, match="row 2 has no symbol"):
        open_source(path, {}, "auto")


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


@pytest.mark.parametrize("name", ["absent", "AAPL.txt"])
def test_path_that_is_nothing_readable_is_refused(tmp_path, name):
    text_file(tmp_path, HEADING + ROW, "AAPL.txt")

    with pytest.raises(DataError, match=name):
        open_source(tmp_path / name, {}, "auto")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: (HEADING + text).encode())))
def test_any_bytes_are_read_or_refused_with_a_data_error(tmp_path, content):
    path = text_file(tmp_path, content)

    with contextlib.suppress(DataError):
        bars = read(path, "AAPL")
        assert len(bars.dates) == len(bars.rows) > 0
