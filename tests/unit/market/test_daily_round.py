"""Appending and correcting: the snapshot that results, its lineage, the panel that a worker extends."""

import shutil
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies.errors import DataError, SnapshotNotFound, UnknownSymbols
from strategies.market.appending import append_bars
from strategies.market.correcting import Correction, correct_bars
from strategies.market.differences import differences
from strategies.market.importing import ImportOptions, import_bars
from strategies.market.lives import Life
from strategies.market.loading import Loading
from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel, read_symbol
from tests.support.market import make_bars, write_raw, xnys

DAY = date(2014, 1, 2)
NAMES = tuple(f"S{number:02d}" for number in range(12))
SESSIONS, BASE = 90, 80


def frames_of(names=NAMES, *, vwap=False):
    return {name: make_bars(seed=seed, sessions=SESSIONS, vwap=vwap) for seed, name in enumerate(names)}


def session(frames, *rows):
    return pd.concat([frame.iloc[list(rows)].assign(symbol=name) for name, frame in frames.items()])


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Place:
    """A data directory with the first sessions imported, and steps upon it."""

    def __init__(self, folder):
        self.folder, self.data, self.day, self.files = folder, folder / "data", DAY, 0

    def begin(self, frames, rows=BASE):
        source = write_raw(self.folder / "raw", {name: frame.iloc[:rows] for name, frame in frames.items()})
        return import_bars(source, self.data, run_date=self.day)

    def append(self, table, **options):
        self.files += 1
        path = self.folder / f"day{self.files}.csv"
        table.to_csv(path, index=False)
        self.day += timedelta(days=1)
        return append_bars(path, self.data, run_date=self.day, **options)

    def correct(self, **what):
        self.day += timedelta(days=1)
        return correct_bars(self.data, Correction(**what), run_date=self.day)

    def panel(self):
        return load_panel(latest_snapshot(self.data), xnys())

    def imported(self, frames):
        source = write_raw(self.folder / "whole", frames)
        import_bars(source, self.folder / "other", run_date=DAY)
        return load_panel(latest_snapshot(self.folder / "other"), xnys())


def assert_same(one, other):
    assert (one.symbols, set(one.fields)) == (other.symbols, set(other.fields))
    np.testing.assert_array_equal(one.sessions, other.sessions)
    for name in one.fields:
        np.testing.assert_array_equal(one.fields[name], other.fields[name])
    np.testing.assert_array_equal(one.first, other.first)
    np.testing.assert_array_equal(one.last, other.last)
    assert set(one.marks) == set(other.marks)
    for name in one.marks:
        np.testing.assert_array_equal(one.marks[name], other.marks[name])


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4).filter(lambda steps: sum(steps) <= SESSIONS - BASE),
    st.booleans(),
    st.sets(st.sampled_from(NAMES[1:]), max_size=2),
    st.integers(0, 2**31),
)
def test_appended_bars_are_those_of_a_whole_import_and_of_an_extended_panel(tmp_path_factory, steps, vwap, new, seed):
    place, frames = Place(tmp_path_factory.mktemp("round")), frames_of(vwap=vwap)
    rng = np.random.default_rng(seed)
    place.begin({name: frame for name, frame in frames.items() if name not in new})
    loading = Loading(data_dir=place.data, calendar=xnys())
    _, panel = loading.newer(None)
    taken = {name: list(range(BASE)) if name not in new else [] for name in NAMES}
    at = BASE
    for count in steps:
        rows = {name: list(range(at, at + count)) for name in NAMES}
        # One symbol has no bar on the last of them.
        rows[NAMES[rng.integers(1, len(NAMES))]].pop()
        before = {name: values.copy() for name, values in panel.fields.items()}
        place.append(pd.concat([frames[name].iloc[rows[name]].assign(symbol=name) for name in NAMES]))
        older, (_, panel) = panel, loading.newer(panel)
        for name in NAMES:
            taken[name] += rows[name]
        at += count

        assert_same(panel, place.panel())
        for name, values in before.items():
            np.testing.assert_array_equal(older.fields[name], values)
    present = {name: frames[name].iloc[taken[name]] for name in NAMES if taken[name]}
    whole = place.imported(present)
    assert_same(whole, panel)
    for days in (5, 61):
        for name, values in whole.window(panel.symbols, whole.sessions[-1].astype(object), days).fields.items():
            window = panel.window(panel.symbols, whole.sessions[-1].astype(object), days)
            np.testing.assert_array_equal(window.fields[name], values)


def test_unchanged_files_are_shared_and_the_snapshot_is_complete_without_its_base(place):
    frames = frames_of()
    place.begin(frames)
    base = latest_snapshot(place.data)

    report = place.append(session(frames, BASE))

    assert (report.bars, report.quarantined, report.parent) == (12, 0, base.id)
    snapshot = latest_snapshot(place.data)
    assert (snapshot.path / "S00.parquet").samefile(base.path / "S00.parquet")
    assert snapshot.manifest.lineage["kind"] == "append"
    assert snapshot.id != base.id
    panel = place.panel()
    shutil.rmtree(base.path)
    assert_same(place.panel(), panel)


def test_rows_that_are_there_already_change_nothing_and_others_are_held_back(place):
    frames = frames_of()
    place.begin(frames)
    again = session(frames, BASE - 1, BASE)
    again.loc[again["symbol"].eq("S03") & again["date"].eq(frames["S03"]["date"][BASE - 1]), "close"] *= 1.001

    report = place.append(again)

    assert (report.unchanged, report.bars, dict(report.reasons)) == (11, 12, {"conflicting_date": 1})


def test_file_without_a_new_bar_is_refused(place):
    frames = frames_of()
    place.begin(frames)

    with pytest.raises(DataError, match="no new bar; rows that are there already 12"):
        place.append(session(frames, BASE - 1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": 100.0, "open": 100.0, "high": 100.0, "low": 100.0}, "unit_mixup"),
        ({"high": 50.0}, "price_spike"),
        ({"volume": -1.0}, "negative_volume"),
        ({"low": np.nan}, "missing_price"),
    ],
)
def test_bad_row_of_an_appended_session_is_held_back(place, change, reason):
    frames = frames_of()
    place.begin(frames)
    table = session(frames, BASE)
    chosen = table["symbol"].eq("S05")
    for name, factor in change.items():
        table.loc[chosen, name] = table.loc[chosen, name] * factor

    report = place.append(table)

    assert reason in report.reasons
    assert (report.bars, report.quarantined) == (11, 1)
    assert np.isnan(place.panel().fields["close"][5, -1])


def test_session_that_has_not_closed_is_not_appended(place):
    frames = frames_of()
    place.begin(frames)
    close = xnys().close_instant(frames["S00"]["date"][BASE].date())

    with pytest.raises(DataError, match="not_closed"):
        place.append(session(frames, BASE), now=close - timedelta(minutes=1))
    assert place.append(session(frames, BASE), now=close).bars == 12


def test_half_an_appended_session_is_not_served_and_the_one_before_is(place):
    frames = frames_of()
    place.begin(frames)
    loading = Loading(data_dir=place.data, calendar=xnys())
    _, panel = loading.newer(None)

    report = place.append(session({name: frames[name] for name in NAMES[:5]}, BASE))

    assert not report.served
    assert loading.newer(panel) is None
    assert "5 of 12 symbols have a bar" in loading.refused()
    # A worker that starts now loads the one before.
    snapshot, _ = Loading(data_dir=place.data, calendar=xnys()).newer(None)
    assert snapshot.id == panel.snapshot_id
    # The rest comes later, and the snapshot serves.
    assert place.append(session({name: frames[name] for name in NAMES[5:]}, BASE)).served
    found = loading.newer(panel)
    assert_same(found[1], place.panel())
    assert loading.refused() == ""


def test_split_that_comes_with_a_session_restates_the_history(place):
    frames = {name: frame.assign(**{"stock splits": 0.0}) for name, frame in frames_of().items()}
    for name in ("open", "high", "low", "close"):
        frames["S02"].loc[BASE:, name] /= 2
    frames["S02"].loc[BASE, "stock splits"] = 2.0
    place.begin(frames)
    loading = Loading(data_dir=place.data, calendar=xnys())
    _, panel = loading.newer(None)

    report = place.append(session(frames, BASE))

    assert report.restated == ("S02",)
    whole = place.imported({name: frame.iloc[: BASE + 1] for name, frame in frames.items()})
    assert_same(whole, place.panel())
    before = panel.fields["close"].copy()
    assert_same(loading.newer(panel)[1], whole)
    np.testing.assert_array_equal(panel.fields["close"], before)


def test_split_that_is_stated_beside_a_session_restates_the_history(place):
    frames = frames_of()
    place.begin(frames)
    for name in ("open", "high", "low", "close"):
        frames["S02"].loc[BASE:, name] /= 3
    frames["S02"].loc[BASE:, "volume"] *= 3
    day = frames["S02"]["date"][BASE].date()

    held = place.append(session(frames, BASE))
    assert (dict(held.reasons), held.bars) == ({"split_like": 1}, 11)
    report = place.append(session(frames, BASE), options=ImportOptions(splits=(("S02", day, 3.0),)))

    assert (report.restated, report.bars, report.quarantined) == (("S02",), 1, 0)
    source = write_raw(place.folder / "whole", {name: frame.iloc[: BASE + 1] for name, frame in frames.items()})
    import_bars(source, place.folder / "other", run_date=DAY, options=ImportOptions(splits=(("S02", day, 3.0),)))
    assert_same(load_panel(latest_snapshot(place.folder / "other"), xnys()), place.panel())


@pytest.mark.parametrize(("symbol", "at"), [("S02", BASE - 1), ("S99", BASE)])
def test_split_that_no_appended_row_shows_is_refused(place, symbol, at):
    frames = frames_of()
    place.begin(frames)
    day = frames["S00"]["date"][at].date()

    with pytest.raises(DataError, match=symbol):
        place.append(session(frames, BASE), options=ImportOptions(splits=((symbol, day, 2.0),)))


def test_renamed_symbol_is_appended_under_its_name_and_rows_of_no_life_are_held_back(place):
    frames = frames_of()
    place.begin(frames)
    day = frames["S00"]["date"][BASE].date()
    ended = date(2013, 1, 31)
    lives = (
        Life(symbol="NEW", first=day, last=date.max, name="S03"),
        Life(symbol="S04", first=date.min, last=ended, name="S04"),
    )
    table = session(frames, BASE)
    table.loc[table["symbol"].eq("S03"), "symbol"] = "NEW"

    report = place.append(table, options=ImportOptions(lives=lives))

    assert (report.bars, dict(report.reasons)) == (11, {"life_ended": 1})
    assert read_symbol(latest_snapshot(place.data), "S03").sessions[-1] == np.datetime64(day)
    assert latest_snapshot(place.data).symbols == NAMES


def test_nothing_to_append_to_is_an_error(place):
    with pytest.raises(SnapshotNotFound):
        place.append(session(frames_of(), BASE))


def test_correction_replaces_bars_and_keeps_every_other_bit(place):
    frames = frames_of()
    place.begin(frames)
    before, old = place.panel(), latest_snapshot(place.data)
    fixed = session({"S04": frames["S04"]}, 40)
    fixed["close"] = fixed["low"]
    fixed.to_csv(place.folder / "fixed.csv", index=False)

    report = place.correct(reason="the exchange cancelled the last trade", source=place.folder / "fixed.csv")

    after = place.panel()
    assert after.fields["close"][4, 40] == frames["S04"]["low"][40]
    changed = before.fields["close"] != after.fields["close"]
    assert np.argwhere(changed).tolist() == [[4, 40]]
    assert report.parent == old.id
    assert find_snapshot(place.data, old.id).path == old.path
    found = differences(place.data, old, latest_snapshot(place.data))
    [one] = found.symbols
    assert (one.symbol, one.kind, one.changed, found.same, found.derived) == ("S04", "changed", 1, 11, True)
    assert found.steps[0]["reason"] == "the exchange cancelled the last trade"


def test_forgotten_split_and_dividend_restate_the_history(place):
    frames = frames_of()
    place.begin(frames)
    before = place.panel()
    day = frames["S01"]["date"][50].date()

    place.correct(reason="forgotten", splits=(("S01", day, 2.0),), dividends=(("S02", day, 1.0),))

    after = place.panel()
    np.testing.assert_array_equal(after.fields["close"][1, :50], before.fields["close"][1, :50] / 2)
    np.testing.assert_array_equal(after.fields["volume"][1, :50], before.fields["volume"][1, :50] * 2)
    paid = 1 - 1.0 / before.fields["close"][2, 49]
    np.testing.assert_allclose(after.fields["close"][2, :50], before.fields["close"][2, :50] * paid, rtol=1e-15)
    for row in (0, *range(3, 12)):
        np.testing.assert_array_equal(after.fields["close"][row], before.fields["close"][row])
    np.testing.assert_array_equal(after.fields["close"][:, 50:], before.fields["close"][:, 50:])


def adjusted_frames():
    """Return raw bars with a 2:1 split on session 30 and a dividend on session 60, as a vendor's columns state them."""
    frames = frames_of()
    for name, frame in frames.items():
        prices = ["open", "high", "low", "close"]
        frame.loc[:29, prices] *= 2
        frame[prices] = frame[prices].round(2)
        frame["high"], frame["low"] = frame[prices].max(axis=1), frame[prices].min(axis=1)
        frame["dividends"], frame["stock splits"] = 0.0, 0.0
        frame.loc[30, "stock splits"], frame.loc[60, "dividends"] = 2.0, 1.0
        frames[name] = frame
    return frames


def test_raw_bars_and_actions_are_kept_as_they_came(place):
    frames = adjusted_frames()
    place.begin(frames)

    bars = read_symbol(latest_snapshot(place.data), "S03", raw=True)

    frame = frames["S03"].iloc[:BASE]
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(bars.raw[name], frame[name].to_numpy())
    np.testing.assert_array_equal(bars.raw["split"], frame["stock splits"].to_numpy())
    np.testing.assert_array_equal(bars.raw["dividend"], frame["dividends"].to_numpy())
    # Adjustment is a function of both.
    np.testing.assert_array_equal(bars.columns["close"], bars.raw["close"] * bars.columns["factor"])
    assert read_symbol(latest_snapshot(place.data), "S03").raw == {}


def test_corrected_dividend_or_split_takes_the_place_of_the_one_before(place):
    frames = adjusted_frames()
    place.begin(frames)
    before, old = place.panel(), latest_snapshot(place.data)
    ex, split = (frames["S00"]["date"][at].date() for at in (60, 30))

    place.correct(reason="paid 0.75", dividends=(("S01", ex, 0.75), ("S02", ex, 0.0)), splits=(("S03", split, 2.0),))

    after = place.panel()
    assert_same(load_panel(old, xnys()), before)
    for row, cash in ((1, 0.75), (2, 0.0), (3, 1.0)):
        name = NAMES[row]
        frame = frames[name].iloc[:BASE].copy()
        frame.loc[60, "dividends"] = cash
        whole = place.imported({name: frame})
        at = whole.symbols.index(name)
        np.testing.assert_allclose(after.fields["close"][row], whole.fields["close"][at], rtol=1e-14)
        np.testing.assert_allclose(after.fields["volume"][row], whole.fields["volume"][at], rtol=1e-14)
        raw = read_symbol(latest_snapshot(place.data), name, raw=True).raw
        np.testing.assert_array_equal(raw["close"], frame["close"].to_numpy())
    changed = (before.fields["close"] != after.fields["close"]).any(axis=1)
    assert [NAMES[row] for row in np.flatnonzero(changed)] == ["S01", "S02"]


def test_split_that_comes_with_a_session_restates_from_the_raw_bars(place):
    frames = adjusted_frames()
    for name in ("open", "high", "low", "close"):
        frames["S02"].loc[BASE:, name] /= 3
    frames["S02"].loc[BASE, "stock splits"] = 3.0
    place.begin(frames)

    assert place.append(session(frames, BASE)).restated == ("S02",)

    bars = read_symbol(latest_snapshot(place.data), "S02", raw=True)
    np.testing.assert_array_equal(bars.raw["close"], frames["S02"]["close"][: BASE + 1].to_numpy())
    whole = place.imported({name: frame.iloc[: BASE + 1] for name, frame in frames.items()})
    np.testing.assert_allclose(place.panel().fields["close"][2], whole.fields["close"][2], rtol=1e-14)


def test_dropped_bar_is_a_missing_session(place):
    frames = frames_of()
    place.begin(frames)

    place.correct(reason="no trade", drops=(("S01", frames["S01"]["date"][50].date()),))

    assert np.argwhere(np.isnan(place.panel().fields["close"])).tolist() == [[1, 50]]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"reason": " ", "drops": (("S01", DAY),)}, DataError),
        ({"reason": "x", "drops": (("S01", date(2013, 1, 5)),)}, DataError),
        ({"reason": "x", "splits": (("NONE", DAY, 2.0),)}, UnknownSymbols),
        ({"reason": "x", "dividends": (("S01", date(2013, 2, 1), 1e6),)}, DataError),
    ],
)
def test_correction_that_cannot_be_made_is_refused(place, what, error):
    place.begin(frames_of())

    with pytest.raises(error):
        place.correct(**what)
    assert latest_snapshot(place.data).manifest.lineage == {}


def test_lost_cache_of_last_bars_is_read_anew(place):
    frames = frames_of()
    place.begin(frames)
    (latest_snapshot(place.data).path / "recent.bars").write_bytes(b"lost")

    assert place.append(session(frames, BASE)).bars == 12


def test_part_that_was_changed_is_noticed(place):
    frames = frames_of()
    place.begin(frames)
    place.append(session(frames, BASE))
    path = latest_snapshot(place.data).path / "part-0001.parquet"
    path.unlink()
    path.write_bytes(b"other")

    with pytest.raises(DataError, match="its bytes are not those the manifest states"):
        read_symbol(latest_snapshot(place.data), "S00")


def test_clock_of_an_import_keeps_running_sessions_out(place):
    frames = frames_of()
    source = write_raw(place.folder / "raw", {"A": frames["S00"]})
    last = frames["S00"]["date"].iloc[-1].date()
    close = xnys().close_instant(last)

    early = import_bars(source, place.data, run_date=last, now=close - timedelta(seconds=1))
    late = import_bars(source, place.data, run_date=last, now=close)

    assert (dict(early.reasons), early.accepted) == ({"not_closed": 1}, 89)
    assert (dict(late.reasons), late.accepted, late.revision) == ({}, 90, 2)
    assert latest_snapshot(place.data).last_session == last
    assert datetime.now(UTC) > close
