from datetime import date
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import CalendarRange
from strategies.market.bars import Panel
from strategies.market.checking import CheckBounds, check_snapshot
from tests.support.market import make_panel, xnys


def changed(panel, changes):
    """Return the panel with (field, row, columns, value) changed; NaN in close empties the whole bar."""
    fields = {name: values.copy() for name, values in panel.fields.items()}
    for name, row, columns, value in changes:
        for other in fields if name == "close" and np.isnan(value) else (name,):
            fields[other][row, columns] = value
    last = np.array([np.flatnonzero(~np.isnan(close))[-1] for close in fields["close"]])
    return Panel(
        symbols=panel.symbols,
        sessions=panel.sessions,
        fields=MappingProxyType(fields),
        first=panel.first,
        last=last,
        snapshot_id=panel.snapshot_id,
    )


def found(panel, **options):
    report = check_snapshot(panel, xnys(), **options)
    return [(finding.kind, finding.symbol, finding.count) for finding in report.findings]


def test_sound_panel_has_no_findings():
    report = check_snapshot(make_panel(), xnys())

    assert report.findings == ()
    assert report.counts() == {}
    assert (report.symbols, report.as_of) == (3, date(2013, 5, 10))


def test_each_kind_of_oddity_is_found_once():
    panel = make_panel(("A", "B", "C", "D"), sessions=90, starts={"D": 50})
    odd = changed(
        panel,
        [
            ("close", 0, slice(85, 90), np.nan),
            ("close", 1, [10, 11, 30], np.nan),
            ("volume", 2, [7, 8], 0.0),
            ("close", 2, 40, panel.fields["close"][2, 39] * 1.5),
        ],
    )

    assert found(odd) == [
        ("stale", "A", 5),
        ("missing_sessions", "B", 3),
        ("suspicious_jump", "C", 2),
        ("zero_volume", "C", 2),
        ("short_history", "D", 40),
        ("late_start", "D", 1),
    ]


def test_findings_name_their_sessions_and_the_move():
    panel = make_panel(("A",))
    odd = changed(panel, [("close", 0, slice(50, 90), panel.fields["close"][0, 49] * 0.5)])

    [jump] = check_snapshot(odd, xnys()).findings

    assert jump.sessions == (panel.sessions[50].astype(object),)
    assert jump.detail == f"{panel.sessions[50]} -50.0%"


def test_nothing_after_the_as_of_session_is_looked_at():
    panel = make_panel(("A",), sessions=90)
    odd = changed(panel, [("close", 0, slice(70, 90), 1.0), ("volume", 0, slice(70, 90), 0.0)])
    as_of = panel.sessions[69].astype(object)

    assert found(odd, as_of=as_of) == []
    assert found(odd, as_of=panel.sessions[70].astype(object)) != []


def test_as_of_after_the_last_session_makes_every_symbol_stale():
    report = check_snapshot(make_panel(), xnys(), as_of=date(2013, 5, 19))

    assert report.as_of == date(2013, 5, 17)
    assert [(finding.kind, finding.count) for finding in report.findings] == [("stale", 5)] * 3
    assert "last bar 2013-05-10, 5 sessions before 2013-05-17" in report.findings[0].detail


def test_as_of_before_the_first_bar_is_no_history():
    report = check_snapshot(make_panel(("A",)), xnys(), as_of=date(2012, 6, 1))

    assert [(finding.kind, finding.detail) for finding in report.findings] == [("short_history", "no bar yet")]


def test_history_is_short_below_the_lookback_only():
    assert found(make_panel(("A",), sessions=61)) == []
    assert found(make_panel(("A",), sessions=60)) == [("short_history", "A", 60)]
    assert found(make_panel(("A",), sessions=60), bounds=CheckBounds(lookback=20)) == []


def test_long_lists_are_cut_in_words_and_whole_in_data():
    odd = changed(make_panel(("A",)), [("volume", 0, slice(10, 30), 0.0)])

    [zero] = check_snapshot(odd, xnys()).findings

    assert zero.detail.endswith(" and 15 more")
    assert len(zero.sessions) == zero.count == 20


def test_as_of_outside_the_calendar_is_refused():
    with pytest.raises(CalendarRange):
        check_snapshot(make_panel(), xnys(), as_of=date(2050, 1, 1))


@settings(deadline=None)
@given(st.lists(st.integers(1, 88), unique=True, max_size=40))
def test_missing_sessions_are_found_exactly(holes):
    odd = changed(make_panel(("A",)), [("close", 0, holes, np.nan)]) if holes else make_panel(("A",))

    missing = [f for f in check_snapshot(odd, xnys()).findings if f.kind == "missing_sessions"]

    sessions = {session for finding in missing for session in finding.sessions}
    assert sessions == {odd.sessions[hole].astype(object) for hole in holes}
