import fcntl
import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from strategies.errors import DataError, UnknownCalendar
from strategies.market import importing
from strategies.market.importing import ImportOptions, import_bars
from strategies.market.quarantine import Rules
from strategies.market.snapshots import find_snapshot, latest_snapshot, list_snapshots, load_panel
from tests.support.market import RUN_DATE, make_bars, write_raw, write_snapshot, xnys

DAY = RUN_DATE.isoformat()


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def raw(tmp_path, bars):
    return write_raw(tmp_path / "raw", bars)


def test_file_holds_the_columns_and_types_of_t1(data_dir):
    snapshot = write_snapshot(data_dir, {"A": make_bars(), "B": make_bars(vwap=True)})

    schema = parquet.read_schema(snapshot.path / "B.parquet")
    assert schema.names == ["symbol", "date", "open", "high", "low", "close", "volume", "vwap", "factor"]
    assert [str(kind) for kind in schema.types] == ["string", "date32[day]", *["double"] * 7]
    assert "vwap" not in parquet.read_schema(snapshot.path / "A.parquet").names


def test_vwap_column_without_a_number_is_no_column(data_dir):
    snapshot = write_snapshot(data_dir, {"A": make_bars().assign(vwap=np.nan)})

    assert not snapshot.manifest.has_vwap
    assert "vwap" not in parquet.read_schema(snapshot.path / "A.parquet").names


def test_prices_are_multiplied_and_volume_divided_by_the_factor(data_dir):
    frame = make_bars(vwap=True).assign(**{"Adj Close": lambda bars: bars["close"] / 7})

    stored = parquet.read_table(write_snapshot(data_dir, {"A": frame}).path / "A.parquet").to_pandas()

    np.testing.assert_allclose(stored["factor"], 1 / 7, rtol=1e-12)
    for name in ("open", "high", "low", "close", "vwap"):
        np.testing.assert_allclose(stored[name], frame[name] / 7, rtol=1e-12)
    np.testing.assert_allclose(stored["volume"], frame["volume"] * 7, rtol=1e-12)


def test_quarantine_keeps_raw_values_row_number_and_all_reasons(tmp_path, data_dir):
    frame = make_bars().assign(factor=2.0)
    frame.loc[7, ["high", "volume"]] = [1.0, -5.0]

    report = import_bars(raw(tmp_path, {"A": frame}), data_dir, run_date=RUN_DATE)

    [row] = parquet.read_table(data_dir / "quarantine" / DAY / "A.parquet").to_pylist()
    assert row["reason"] == "negative_volume;high_below_low;open_outside_range;close_outside_range"
    assert (row["symbol"], row["date"], row["row"]) == ("A", frame["date"][7].date(), 8)
    assert (row["high"], row["volume"], row["factor"]) == (1.0, -5.0, 2.0)
    assert row["close"] == pytest.approx(frame["close"][7])
    assert (report.accepted, report.quarantined, dict(report.quarantined_symbols)) == (89, 1, {"A": 1})


def test_every_row_read_is_a_bar_or_in_quarantine(tmp_path, data_dir):
    rng = np.random.default_rng(5)
    frames = {}
    for seed, symbol in enumerate("ABCDEF"):
        frame = make_bars(sessions=60, seed=seed)
        for name in ("open", "high", "low", "close", "volume"):
            frame.loc[rng.choice(60, 3), name] = rng.choice([np.nan, -1.0, 0.0, 1e9], 3)
        frames[symbol] = frame.iloc[rng.permutation(60)] if symbol == "F" else frame

    report = import_bars(raw(tmp_path, frames), data_dir, run_date=RUN_DATE)

    quarantined = pd.concat(map(pd.read_parquet, sorted((data_dir / "quarantine" / DAY).iterdir())))
    accepted = pd.concat(map(pd.read_parquet, sorted((data_dir / "adjusted" / DAY).glob("*.parquet"))))
    assert (len(accepted), len(quarantined)) == (report.accepted, report.quarantined)
    assert len(accepted) + len(quarantined) == 6 * 60
    assert set(zip(accepted["symbol"], accepted["date"], strict=True)).isdisjoint(
        zip(quarantined["symbol"], quarantined["date"], strict=True)
    )


def test_symbol_without_a_true_row_is_named_and_left_out(tmp_path, data_dir):
    report = import_bars(
        raw(tmp_path, {"A": make_bars(), "B": make_bars().assign(low=0.0)}), data_dir, run_date=RUN_DATE
    )

    assert report.empty_symbols == ("B",)
    assert latest_snapshot(data_dir).symbols == ("A",)
    assert parquet.read_metadata(data_dir / "quarantine" / DAY / "B.parquet").num_rows == 90


def test_import_without_a_single_true_row_is_refused(tmp_path, data_dir):
    with pytest.raises(DataError, match="no row can be a bar; reasons and rows: non_positive_price 90"):
        import_bars(raw(tmp_path, {"A": make_bars().assign(low=0.0)}), data_dir, run_date=RUN_DATE)

    assert list_snapshots(data_dir) == ()


def test_same_import_again_changes_nothing(tmp_path, data_dir):
    source = raw(tmp_path, {"A": make_bars()})
    first = import_bars(source, data_dir, run_date=RUN_DATE)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.parquet")}

    again = import_bars(source, data_dir, run_date=RUN_DATE)

    assert (first.created, again.created) == (True, False)
    assert again.snapshot_id == first.snapshot_id
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.parquet")} == before


def test_other_bars_for_the_same_run_date_make_a_revision(tmp_path, data_dir):
    first = write_snapshot(data_dir, {"A": make_bars()})

    report = import_bars(raw(tmp_path, {"A": make_bars(seed=3)}), data_dir, run_date=RUN_DATE)
    again = import_bars(raw(tmp_path, {"A": make_bars(seed=3)}), data_dir, run_date=RUN_DATE)

    assert (report.revision, report.created, again.created) == (2, True, False)
    latest = latest_snapshot(data_dir)
    assert (latest.id, latest.path.name) == (report.snapshot_id, f"{DAY}.2")
    assert latest.manifest.lineage == {"kind": "revision", "parent": first.id, "folder": DAY}
    # What was served before can still be replayed.
    assert find_snapshot(data_dir, first.id).path == first.path
    assert [find_snapshot(data_dir, name).id for name in (DAY, f"{DAY}.2")] == [latest.id, latest.id]


def test_folder_without_manifest_in_the_way_is_refused(tmp_path, data_dir):
    (data_dir / "adjusted" / DAY).mkdir(parents=True)

    with pytest.raises(DataError, match="exists without a manifest"):
        import_bars(raw(tmp_path, {"A": make_bars()}), data_dir, run_date=RUN_DATE)


def test_order_format_and_writer_do_not_change_the_id(tmp_path, data_dir):
    frames = {symbol: make_bars(seed=seed) for seed, symbol in enumerate(("A", "B"))}
    table = pd.concat([frame.assign(ticker=symbol) for symbol, frame in reversed(frames.items())])
    table.iloc[::-1].to_parquet(tmp_path / "all.parquet")

    by_file = write_snapshot(data_dir, frames)
    report = import_bars(tmp_path / "all.parquet", tmp_path / "other", run_date=date(2031, 5, 6))

    assert report.snapshot_id == by_file.id


@pytest.mark.parametrize("fatal", ["_write_quarantine", "write_synced", "sync", "_manifest"])
def test_import_that_dies_leaves_no_snapshot_and_can_be_repeated(tmp_path, data_dir, monkeypatch, fatal):
    frame = make_bars()
    frame.loc[3, "low"] = 0.0
    source = raw(tmp_path, {"A": frame, "B": make_bars(seed=1)})

    def die(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(importing, fatal, die)
        with pytest.raises(OSError, match="No space"):
            import_bars(source, data_dir, run_date=RUN_DATE)

    assert list_snapshots(data_dir) == ()
    assert [path.name for path in data_dir.iterdir() if path.name.startswith(".import-")] == []
    assert import_bars(source, data_dir, run_date=RUN_DATE).created


def test_quarantine_left_without_its_snapshot_is_replaced(tmp_path, data_dir):
    left = data_dir / "quarantine" / DAY / "OLD.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left by a dead import")

    import_bars(raw(tmp_path, {"A": make_bars()}), data_dir, run_date=RUN_DATE)

    assert not left.exists()


def test_what_a_killed_import_left_is_cleared_away(tmp_path, data_dir):
    (data_dir / ".import-dead" / "adjusted").mkdir(parents=True)

    import_bars(raw(tmp_path, {"A": make_bars()}), data_dir, run_date=RUN_DATE)

    assert sorted(path.name for path in data_dir.iterdir()) == [".import.lock", "adjusted", "quarantine"]


def test_second_import_at_the_same_time_is_refused(tmp_path, data_dir):
    data_dir.mkdir()
    with (data_dir / ".import.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(DataError, match="another import is running"):
            import_bars(raw(tmp_path, {"A": make_bars()}), data_dir, run_date=RUN_DATE)


def test_snapshot_appears_only_after_its_last_byte(tmp_path, data_dir, monkeypatch):
    seen = []
    fsync = os.fsync

    def spy(descriptor):
        seen.append(len(list_snapshots(data_dir)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    import_bars(raw(tmp_path, {"A": make_bars(), "B": make_bars()}), data_dir, run_date=RUN_DATE)

    # Two files, the manifest, two folders, the quarantine's parent, and last the parent of the visible snapshot.
    assert seen == [0, 0, 0, 0, 0, 0, 1]


def test_snapshot_is_whole_from_the_moment_it_can_be_seen(tmp_path, data_dir, monkeypatch):
    seen = []
    rename = Path.rename

    def spy(path, target):
        rename(path, target)
        seen.extend(len(load_panel(snapshot, xnys()).symbols) for snapshot in list_snapshots(data_dir))

    monkeypatch.setattr(Path, "rename", spy)
    import_bars(raw(tmp_path, {symbol: make_bars() for symbol in "ABCD"}), data_dir, run_date=RUN_DATE)

    assert seen == [4]


def test_missing_numbers_are_null_and_not_nan_on_disk(tmp_path, data_dir):
    frame = make_bars(vwap=True)
    frame.loc[2, "vwap"] = np.nan
    frame.loc[3, "open"] = np.nan

    import_bars(raw(tmp_path, {"A": frame}), data_dir, run_date=RUN_DATE)

    assert parquet.read_table(data_dir / "adjusted" / DAY / "A.parquet")["vwap"].null_count == 1
    assert parquet.read_table(data_dir / "quarantine" / DAY / "A.parquet")["open"].null_count == 1


def test_progress_is_told_of_every_symbol(tmp_path, data_dir):
    told = []
    source = raw(tmp_path, {"B": make_bars(), "A": make_bars()})

    import_bars(source, data_dir, run_date=RUN_DATE, progress=lambda *step: told.append(step))

    assert told == [(1, 2, "A"), (2, 2, "B")]


def test_symbols_adjusted_in_different_ways_are_refused(tmp_path, data_dir):
    bars = {"A": make_bars(), "B": make_bars().assign(factor=1.0)}

    with pytest.raises(DataError, match="different ways: A by none, B by factor"):
        import_bars(raw(tmp_path, bars), data_dir, run_date=RUN_DATE)


def test_unknown_calendar_is_refused_before_anything_is_written(tmp_path, data_dir):
    with pytest.raises(UnknownCalendar):
        import_bars(
            raw(tmp_path, {"A": make_bars()}), data_dir, run_date=RUN_DATE, options=ImportOptions(calendar="NO")
        )

    assert not data_dir.exists()


def test_manifest_states_how_the_snapshot_was_made(data_dir):
    frame = make_bars().assign(factor=1.0)
    frame.loc[3, "low"] = 0.0
    moves = Rules(max_move=0.3, confirmed_moves=frozenset({("A", date(2013, 2, 1))}))
    snapshot = write_snapshot(data_dir, {"A": frame}, options=ImportOptions(rules=moves))

    stated = json.loads((snapshot.path / "manifest.json").read_text())

    assert stated["options"]["max_move"] == 0.3
    assert stated["options"]["confirmed_moves"] == ["A:2013-02-01"]
    assert (stated["adjustment"], stated["calendar"], stated["quarantined"]) == ("factor", "XNYS", {"A": 1})
    assert stated["files"]["A"]["rows"] == 89
