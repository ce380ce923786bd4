"""Qlib's own file dump is the oracle: the same bars, dumped as Qlib dumps them and read through our providers."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.contrib.data.handler import Alpha158
from qlib.contrib.eva.alpha import calc_ic
from qlib.data import D
from qlib.data.dataset.handler import DataHandlerLP

from strategies.alpha_baseline.data_loader import T1DataProvider
from strategies.errors import DataError, SnapshotNotFound, UnknownSymbols
from tests.support.market import make_bars, write_snapshot, xnys

FIELDS = ("open", "high", "low", "close", "volume", "factor")
EXPRESSIONS = [
    "$close",
    "$Volume",
    "$vwap",
    "$nonsense/$close",
    "Ref($close, 1)",
    "Ref($close, -2)/Ref($close, -1) - 1",
    "Mean($close, 5)/$close",
    "Corr($close, Log($volume+1), 10)",
    "Sum(Greater($close-Ref($close, 1), 0), 20)/(Sum(Abs($close-Ref($close, 1)), 20)+1e-12)",
    "IdxMax($high, 20)/20",
    "Rank($close, 10)",
    "Rsquare($close, 30)",
]


def gappy_bars():
    """Return bars with a late listing, an early end, missing sessions and a split."""
    whole = make_bars(sessions=120).assign(adj_close=lambda bars: bars["close"] / 7)
    late = make_bars(sessions=80, first=date(2013, 2, 1), seed=1).drop(index=[3, 10, 11, 12, 40])
    ended = make_bars(sessions=50, seed=2, vwap=True)
    return {
        "AAPL": whole,
        "BF.B": late.assign(adj_close=late["close"]),
        "ALL": ended.assign(adj_close=ended["close"]).drop(columns="vwap"),
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity") / "data"
    write_snapshot(folder, gappy_bars())
    return folder


@pytest.fixture
def provider(data_dir):
    provider = T1DataProvider(data_dir)
    provider.init_qlib()
    return provider


@pytest.fixture(scope="module")
def dump(data_dir, tmp_path_factory):
    """Write the snapshot as Qlib's scripts/dump_bin.py does: text calendars and float32 files from the first bar on."""
    folder = tmp_path_factory.mktemp("dump")
    provider = T1DataProvider(data_dir)
    sessions = pd.DatetimeIndex(provider.sessions())
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir()
    (folder / "calendars/day.txt").write_text("\n".join(day.strftime("%Y-%m-%d") for day in sessions) + "\n")
    lines = []
    for symbol in provider.symbols():
        bars = provider.bars([symbol]).droplevel("instrument")
        dense = bars.reindex(sessions[(sessions >= bars.index[0]) & (sessions <= bars.index[-1])])
        lines.append(f"{symbol}\t{dense.index[0]:%Y-%m-%d}\t{dense.index[-1]:%Y-%m-%d}\n")
        (folder / "features" / symbol.lower()).mkdir()
        for field in FIELDS:
            content = np.hstack([sessions.get_loc(dense.index[0]), dense[field]]).astype("<f")
            content.tofile(folder / "features" / symbol.lower() / f"{field}.day.bin")
    (folder / "instruments/all.txt").write_text("".join(lines))
    return folder


def query(start=None, end=None, instruments=None):
    return D.features(instruments or D.instruments("all"), EXPRESSIONS, start_time=start, end_time=end)


def init_on_dump(folder):
    qlib.init(provider_uri=str(folder), region="us", kernels=1, logging_level=40)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        ("2013-03-04", "2013-03-04"),
        ("2013-03-02", "2013-03-17"),
        ("2013-03-20", None),
        (None, "2013-01-10"),
    ],
)
@pytest.mark.usefixtures("provider")
def test_features_equal_those_of_a_qlib_dump_exactly(dump, start, end):
    ours = query(start, end)
    init_on_dump(dump)

    pd.testing.assert_frame_equal(ours, query(start, end), check_exact=True)
    assert len(ours) > 0


@pytest.mark.usefixtures("provider")
def test_lists_of_instruments_equal_those_of_a_qlib_dump(dump):
    asked = ["bf.b", "AAPL", "UNKNOWN"]
    ours = query(instruments=asked)
    init_on_dump(dump)

    pd.testing.assert_frame_equal(ours, query(instruments=asked), check_exact=True)


@pytest.mark.usefixtures("provider")
def test_calendar_and_instruments_equal_those_of_a_qlib_dump(dump):
    def answers():
        return (
            list(D.calendar()),
            list(D.calendar("2013-03-02", "2013-03-17")),
            list(D.calendar(start_time="2031-01-01")),
            D.list_instruments(D.instruments("all")),
            D.list_instruments(D.instruments("all"), start_time="2013-05-01", as_list=True),
        )

    ours = answers()
    init_on_dump(dump)

    assert ours == answers()


@pytest.mark.usefixtures("provider")
def test_future_calendar_extends_to_the_end_of_the_exchange():
    sessions = D.calendar(future=True)

    assert sessions[0] == pd.Timestamp("2013-01-02")
    assert sessions[-1] == pd.Timestamp(xnys().sessions[-1])


@pytest.mark.usefixtures("provider")
def test_vwap_is_nan_where_bars_have_none():
    values = D.features(["AAPL"], ["$vwap/$close", "$close"])

    assert values["$vwap/$close"].isna().all()
    assert values["$close"].notna().all()


def test_vwap_is_adjusted_and_read_where_bars_have_it(tmp_path):
    frame = make_bars(vwap=True).assign(factor=0.5)
    write_snapshot(tmp_path / "data", {"AAPL": frame})
    T1DataProvider(tmp_path / "data").init_qlib()
    values = D.features(["AAPL"], ["$vwap"])["$vwap"]

    np.testing.assert_array_equal(values, (frame["vwap"] * 0.5).astype(np.float32))


@pytest.mark.usefixtures("provider")
def test_other_frequencies_and_markets_are_refused():
    with pytest.raises(ValueError, match="snapshots hold daily bars"):
        D.calendar(freq="1min")
    with pytest.raises(ValueError, match="market was 'csi300'"):
        D.list_instruments(D.instruments("csi300"))


@pytest.mark.usefixtures("provider")
def test_alpha158_handler_runs_on_a_snapshot():
    handler = Alpha158(
        instruments="all",
        start_time="2013-04-01",
        end_time="2013-05-31",
        fit_start_time="2013-04-01",
        fit_end_time="2013-04-30",
    )

    features = handler.fetch(col_set="feature", data_key=DataHandlerLP.DK_I)
    labels = handler.fetch(col_set="label", data_key=DataHandlerLP.DK_R)
    assert features.shape[1] == 158
    assert features["VWAP0"].isna().all()
    assert features["KMID"].notna().any()
    assert labels.index.get_level_values("instrument").unique().tolist() == ["AAPL", "BF.B"]


@pytest.mark.usefixtures("provider")
def test_qlib_evaluation_runs_on_a_snapshot():
    values = D.features(D.instruments("all"), ["$close/Ref($close, 5)", "Ref($close, -1)/$close"]).dropna()

    ic, rank_ic = calc_ic(values.iloc[:, 0], values.iloc[:, 1])

    assert ic.notna().any()
    assert rank_ic.abs().max() <= 1


def test_provider_keeps_its_snapshot_when_a_newer_one_arrives(tmp_path):
    write_snapshot(tmp_path / "data", {"AAPL": make_bars(seed=1)})
    provider = T1DataProvider(tmp_path / "data")
    write_snapshot(tmp_path / "data", {"AAPL": make_bars(seed=2)}, run_date=date(2031, 1, 2))
    provider.init_qlib()
    values = D.features(["AAPL"], ["$close"])["$close"]

    np.testing.assert_array_equal(values, make_bars(seed=1)["close"].astype(np.float32))
    assert T1DataProvider(tmp_path / "data").snapshot.id != provider.snapshot.id


def test_queries_in_worker_processes_give_the_same_values(provider):
    whole = query("2013-02-01", "2013-03-28")

    provider.init_qlib(kernels=2)

    pd.testing.assert_frame_equal(query("2013-02-01", "2013-03-28"), whole, check_exact=True)


def test_bars_are_indexed_by_session_and_symbol_without_holes(data_dir):
    provider = T1DataProvider(data_dir)

    bars = provider.bars(["BF.B", "AAPL"], "2013-02-01", date(2013, 2, 8))

    assert bars.index.names == ["datetime", "instrument"]
    assert bars.index.is_monotonic_increasing
    assert bars.loc[pd.Timestamp("2013-02-06")].index.tolist() == ["AAPL"]
    assert bars.loc[(pd.Timestamp("2013-02-01"), "AAPL"), "factor"] == pytest.approx(1 / 7)
    assert list(bars.columns) == list(FIELDS)
    with pytest.raises(UnknownSymbols):
        provider.bars(["XXX"])


def test_provider_refuses_what_is_not_there(data_dir, tmp_path):
    with pytest.raises(SnapshotNotFound):
        T1DataProvider(tmp_path)
    with pytest.raises(SnapshotNotFound):
        T1DataProvider(data_dir, "2001-01-01")
    with pytest.raises(DataError, match="stands on calendar XNYS, not XLON"):
        T1DataProvider(data_dir, calendar="XLON")
