import hashlib
import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pyarrow import parquet

from strategies.errors import DataError, SnapshotNotFound, UnknownSymbols
from strategies.market import manifest, snapshots
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import content_sha256
from strategies.market.snapshots import find_snapshot, latest_snapshot, list_snapshots, load_panel, read_symbol
from tests.support.market import RUN_DATE, make_bars, write_snapshot, xnys


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_panel_holds_the_imported_bars_on_their_sessions(data_dir):
    bars = {"AAPL": make_bars(sessions=30), "BF.B": make_bars(sessions=10, first=date(2013, 1, 10), seed=1)}
    snapshot = write_snapshot(data_dir, bars)

    panel = load_panel(snapshot, xnys())

    assert panel.symbols == ("AAPL", "BF.B")
    assert panel.snapshot_id == snapshot.id
    assert panel.first.tolist() == [0, 6]
    assert panel.last.tolist() == [29, 15]
    np.testing.assert_array_equal(panel.sessions, bars["AAPL"]["date"].to_numpy().astype("datetime64[D]"))
    np.testing.assert_array_equal(panel.fields["close"][1, 6:16], bars["BF.B"]["close"])
    assert np.isnan(panel.fields["close"][1, [0, 5, 16, 29]]).all()


def test_panel_arrays_are_read_only_contiguous_float64(data_dir):
    panel = load_panel(write_snapshot(data_dir), xnys(), fields=("factor",))

    assert set(panel.fields) == {"open", "high", "low", "close", "volume", "factor"}
    for values in panel.fields.values():
        assert values.dtype == np.float64
        assert values.flags.c_contiguous
        assert not values.flags.writeable


def test_quarantined_row_is_a_missing_session(data_dir):
    frame = make_bars(sessions=10)
    frame.loc[4, "high"] = 1.0

    panel = load_panel(write_snapshot(data_dir, {"AAPL": frame}), xnys())

    assert np.flatnonzero(np.isnan(panel.fields["close"][0])).tolist() == [4]


def test_vwap_is_a_field_only_where_some_bar_knows_it(data_dir, tmp_path):
    without = load_panel(write_snapshot(data_dir, {"A": make_bars()}), xnys())
    both = {"A": make_bars(), "B": make_bars(vwap=True)}
    panel = load_panel(write_snapshot(tmp_path / "other", both), xnys())

    assert "vwap" not in without.fields
    assert np.isnan(panel.fields["vwap"][0]).all()
    assert not np.isnan(panel.fields["vwap"][1]).any()
    assert "vwap" not in load_panel(find_snapshot(tmp_path / "other", panel.snapshot_id), xnys(), fields=()).fields


def test_chosen_symbols_stand_where_they_stand_among_all(data_dir):
    bars = {"A": make_bars(sessions=30), "B": make_bars(sessions=5, first=date(2013, 1, 10))}
    snapshot = write_snapshot(data_dir, bars)

    alone = load_panel(snapshot, xnys(), symbols=["B"])

    np.testing.assert_array_equal(alone.fields["close"][0], load_panel(snapshot, xnys()).fields["close"][1])
    assert alone.symbols == ("B",)


def test_snapshot_without_manifest_is_never_seen(data_dir):
    snapshot = write_snapshot(data_dir)
    for name in ("2031-01-01", "latest", "2031-01-02.part"):
        (data_dir / "adjusted" / name).mkdir()
        (data_dir / "adjusted" / name / "AAPL.parquet").write_bytes(b"half")

    assert [found.id for found in list_snapshots(data_dir)] == [snapshot.id]
    assert latest_snapshot(data_dir).path == snapshot.path


def test_latest_snapshot_is_of_the_latest_run_date(data_dir):
    newer = write_snapshot(data_dir, {"A": make_bars(seed=2)}, run_date=date(2031, 1, 2))
    older = write_snapshot(data_dir, {"A": make_bars(seed=1)}, run_date=date(2030, 1, 2))

    assert latest_snapshot(data_dir).id == newer.id
    assert [snapshot.id for snapshot in list_snapshots(data_dir)] == [older.id, newer.id]


def test_folder_that_is_named_as_no_day_hides_no_snapshot(data_dir):
    snapshot = write_snapshot(data_dir)
    shutil.copytree(snapshot.path, snapshot.path.with_name("9999-99-99"))

    assert latest_snapshot(data_dir).id == snapshot.id


def test_snapshot_is_found_by_id_short_id_and_date(data_dir):
    snapshot = write_snapshot(data_dir)
    write_snapshot(data_dir, {"A": make_bars(seed=9)}, run_date=date(2031, 1, 2))

    for name in (snapshot.id, snapshot.id[:8], RUN_DATE.isoformat()):
        assert find_snapshot(data_dir, name).id == snapshot.id


def test_equal_bars_of_two_run_dates_are_one_id(data_dir):
    first = write_snapshot(data_dir)
    second = write_snapshot(data_dir, run_date=date(2031, 1, 2))

    assert first.id == second.id
    assert find_snapshot(data_dir, first.id).path == second.path


def test_digits_that_fit_two_snapshots_find_neither(data_dir, monkeypatch):
    snapshot = write_snapshot(data_dir)
    ids = [f"{snapshot.id[:8]}{digit * 56}" for digit in "ab"]
    twins = [replace(snapshot, manifest=replace(snapshot.manifest, snapshot_id=one)) for one in ids]
    monkeypatch.setattr(snapshots, "list_snapshots", lambda _folder: tuple(twins))

    with pytest.raises(SnapshotNotFound, match="2 fit of 2"):
        find_snapshot(data_dir, snapshot.id[:8])
    assert find_snapshot(data_dir, ids[1]).id == ids[1]


@pytest.mark.parametrize("name", ["0" * 64, "2029-01-01", "", "../2030-01-02", "abc"])
def test_unknown_snapshot_is_not_found(data_dir, name):
    write_snapshot(data_dir)

    with pytest.raises(SnapshotNotFound, match="none fits of 1"):
        find_snapshot(data_dir, name)


def test_empty_data_directory_has_no_snapshot(data_dir):
    with pytest.raises(SnapshotNotFound, match="no complete snapshot below"):
        latest_snapshot(data_dir)


def test_unknown_symbols_are_named(data_dir):
    snapshot = write_snapshot(data_dir)

    with pytest.raises(UnknownSymbols, match="XXX, YYY"):
        load_panel(snapshot, xnys(), symbols=["AAPL", "XXX", "YYY"])
    with pytest.raises(UnknownSymbols, match=r"\.\./AAPL"):
        read_symbol(snapshot, "../AAPL")


def test_unknown_field_is_refused(data_dir):
    with pytest.raises(DataError, match="unknown field 'turnover'"):
        load_panel(write_snapshot(data_dir), xnys(), fields=("close", "turnover"))


def test_other_calendar_than_the_imported_one_is_refused(data_dir):
    with pytest.raises(DataError, match="stands on calendar XNYS, was asked for on XLON"):
        load_panel(write_snapshot(data_dir), SessionCalendar("XLON"))


def test_calendar_that_ends_before_the_bars_is_refused(data_dir):
    with pytest.raises(DataError, match="outside the exchange calendar, which covers 2010-01-01 to 2013-01-31"):
        load_panel(write_snapshot(data_dir), SessionCalendar("XNYS", date(2010, 1, 1), date(2013, 1, 31)))


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_truncated_file_is_refused_by_name(data_dir, size, verify):
    snapshot = write_snapshot(data_dir)
    path = snapshot.path / "IBM.parquet"
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(DataError, match=r"IBM\.parquet"):
        load_panel(snapshot, xnys(), verify=verify)


def test_absent_file_is_refused_by_name(data_dir):
    snapshot = write_snapshot(data_dir)
    (snapshot.path / "IBM.parquet").unlink()

    with pytest.raises(DataError, match=r"IBM\.parquet: cannot be read"):
        load_panel(snapshot, xnys())


def rewrite(path, change):
    table = parquet.read_table(path).to_pydict()
    change(table)
    parquet.write_table(pa.table(table), path)


def test_changed_bar_is_noticed_by_its_hash(data_dir):
    snapshot = write_snapshot(data_dir)
    rewrite(snapshot.path / "IBM.parquet", lambda table: table["close"].__setitem__(3, 1.0))

    with pytest.raises(DataError, match=r"IBM\.parquet: its bytes are not those the manifest states"):
        load_panel(snapshot, xnys())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: [column.pop() for column in table.values()], "has 89 rows, the manifest states 90"),
        (lambda table: table["date"].reverse(), "dates do not ascend"),
        (lambda table: table["date"].__setitem__(0, date(2012, 12, 31)), "runs 2012-12-31 to"),
        (lambda table: table["date"].__setitem__(4, date(2013, 1, 5)), "dates do not ascend"),
        (lambda table: table["date"].__setitem__(3, date(2013, 1, 5)), "is no session of the snapshot's calendar"),
        (lambda table: table.pop("close"), "cannot be read"),
        (lambda table: table.update(close=["x"] * 90), "cannot be read"),
    ],
)
def test_bars_that_cannot_stand_are_refused_even_unverified(data_dir, change, sentence):
    snapshot = write_snapshot(data_dir)
    rewrite(snapshot.path / "IBM.parquet", change)

    with pytest.raises(DataError, match=sentence):
        load_panel(snapshot, xnys(), verify=False)


def edit_manifest(snapshot, change):
    path = snapshot.path / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda fields: fields.update(format=2), "has format 2, 1 is read"),
        (lambda fields: fields.pop("files"), "no manifest of a snapshot: KeyError: 'files'"),
        (lambda fields: fields.update(files={}), "no files"),
        (lambda fields: fields.update(snapshot_id="0" * 64), "states snapshot id 0000"),
        (lambda fields: fields.update(calendar="XLON"), "its files make"),
        (lambda fields: fields["files"].update({"../X": fields["files"]["IBM"]}), "symbol was '../X'"),
        (lambda fields: fields["files"]["IBM"].update(file_sha256="no"), "'no' is no SHA-256"),
        (lambda fields: fields.update(run_date="2030-01-03"), "its manifest states run date 2030-01-03"),
        (lambda fields: fields.update(run_date=5), "no manifest of a snapshot"),
        (lambda fields: fields["files"]["IBM"].update(rows=float("inf")), "no manifest of a snapshot: OverflowError"),
    ],
)
def test_manifest_that_contradicts_itself_is_refused(data_dir, change, sentence):
    snapshot = write_snapshot(data_dir)
    edit_manifest(snapshot, change)

    with pytest.raises(DataError, match=sentence):
        latest_snapshot(data_dir)


def test_bars_that_differ_from_their_content_hash_are_refused(data_dir):
    snapshot = write_snapshot(data_dir)
    rewrite(snapshot.path / "IBM.parquet", lambda table: table["close"].__setitem__(3, 1.0))
    forged = hashlib.sha256((snapshot.path / "IBM.parquet").read_bytes()).hexdigest()
    edit_manifest(snapshot, lambda fields: fields["files"]["IBM"].update(file_sha256=forged))

    with pytest.raises(DataError, match=r"IBM\.parquet: its bars are not those the manifest states"):
        load_panel(latest_snapshot(data_dir), xnys())


def test_manifest_beyond_the_size_limit_is_not_read(data_dir, monkeypatch):
    write_snapshot(data_dir)
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)

    with pytest.raises(DataError, match="bytes, at most 10 are read"):
        latest_snapshot(data_dir)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000])
def test_unreadable_manifest_is_refused_and_no_older_one_served(data_dir, content):
    write_snapshot(data_dir)
    newer = write_snapshot(data_dir, {"A": make_bars(seed=7)}, run_date=date(2031, 1, 2))
    (newer.path / "manifest.json").write_bytes(content)

    with pytest.raises(DataError, match="is no manifest of a snapshot"):
        latest_snapshot(data_dir)


bars = arrays.arrays(np.float64, 5, elements=st.floats(allow_nan=True, allow_infinity=False))
sessions = np.arange("2013-01-07", "2013-01-12", dtype="datetime64[D]")


@settings(deadline=None)
@given(bars, bars)
def test_content_hash_differs_exactly_when_values_differ(one, other):
    same = np.array_equal(one, other, equal_nan=True) or (np.isnan(one).all() and np.isnan(other).all())

    hashes = [content_sha256(sessions, {"close": values}) for values in (one, other)]

    assert (hashes[0] == hashes[1]) == same


def test_content_hash_knows_columns_dates_and_no_nan_payload():
    values = np.array([1.0, np.nan, 0.0, 4.0, 5.0])
    other_nan = values.copy()
    other_nan.view(np.uint64)[1] = 0xFFF8_0000_0000_0001
    plain = content_sha256(sessions, {"close": values})

    assert content_sha256(sessions, {"close": np.where(values == 0, -0.0, values)}) == plain
    assert content_sha256(sessions, {"close": other_nan, "vwap": np.full(5, np.nan)}) == plain
    assert content_sha256(sessions, {"open": values}) != plain
    assert content_sha256(sessions + np.timedelta64(1, "D"), {"close": values}) != plain


def test_data_directory_that_cannot_be_listed_is_told(data_dir, monkeypatch):
    write_snapshot(data_dir)

    def fail(_path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", fail)

    with pytest.raises(DataError, match="cannot be listed: Input/output error"):
        latest_snapshot(data_dir)
