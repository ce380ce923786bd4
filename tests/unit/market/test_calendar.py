from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import CalendarRange, UnknownCalendar, UnusableCalendar
from strategies.market.calendar import SessionCalendar

XNYS = SessionCalendar()
days = st.dates(min_value=date(1990, 1, 5), max_value=date(2040, 12, 1))


def test_default_calendar_covers_1990_to_2040():
    assert (XNYS.name, XNYS.first, XNYS.last) == ("XNYS", date(1990, 1, 1), date(2040, 12, 31))
    assert XNYS.sessions[0] == np.datetime64("1990-01-02")
    assert not XNYS.sessions.flags.writeable


@pytest.mark.parametrize(
    ("day", "session"),
    [
        (date(2013, 2, 1), date(2013, 2, 1)),
        (date(2013, 2, 3), date(2013, 2, 1)),  # Sunday
        (date(2012, 10, 30), date(2012, 10, 26)),  # Hurricane Sandy closed two days
        (date(2013, 1, 1), date(2012, 12, 31)),  # New Year
    ],
)
def test_a_closed_day_resolves_to_the_session_before(day, session):
    assert XNYS.session_at_or_before(day) == session
    assert XNYS.is_session(day) == (day == session)


@given(st.lists(st.one_of(st.none(), st.dates(min_value=date(1900, 1, 1), max_value=date(2200, 1, 1))), max_size=30))
def test_contained_days_are_those_that_are_in_the_list_of_sessions(listed):
    these = np.array(["NaT" if day is None else day.isoformat() for day in listed], "datetime64[D]")

    np.testing.assert_array_equal(XNYS.contains(these), np.isin(these, XNYS.sessions))


def test_next_session_skips_weekends_and_holidays():
    assert XNYS.next_session(date(2012, 12, 31)) == date(2013, 1, 2)
    assert XNYS.next_session(date(2013, 2, 2)) == date(2013, 2, 4)
    assert XNYS.next_session(date(2013, 2, 1), 2) == date(2013, 2, 5)


def test_half_day_closes_three_hours_early():
    assert XNYS.close_instant(date(2012, 11, 23)) == datetime(2012, 11, 23, 18, tzinfo=UTC)
    assert XNYS.close_instant(date(2012, 11, 26)) == datetime(2012, 11, 26, 21, tzinfo=UTC)


def test_summer_time_moves_the_close_in_utc():
    assert XNYS.close_instant(date(2013, 7, 1)) == datetime(2013, 7, 1, 20, tzinfo=UTC)


def test_session_is_complete_only_from_its_close_on():
    close = datetime(2013, 2, 1, 21, tzinfo=UTC)

    assert XNYS.last_complete_session(close - timedelta(microseconds=1)) == date(2013, 1, 31)
    assert XNYS.last_complete_session(close) == date(2013, 2, 1)
    assert XNYS.last_complete_session(datetime(2013, 2, 3, 12, tzinfo=UTC)) == date(2013, 2, 1)


def test_settle_minutes_delay_the_completion_of_a_session():
    close = datetime(2013, 2, 1, 21, tzinfo=UTC)

    assert XNYS.last_complete_session(close + timedelta(minutes=29), settle_minutes=30) == date(2013, 1, 31)
    assert XNYS.last_complete_session(close + timedelta(minutes=30), settle_minutes=30) == date(2013, 2, 1)


def test_half_day_is_complete_from_its_early_close():
    assert XNYS.last_complete_session(datetime(2012, 11, 23, 18, tzinfo=UTC)) == date(2012, 11, 23)


def test_instant_of_another_time_zone_is_the_same_instant():
    tokyo = timezone(timedelta(hours=9))

    assert XNYS.last_complete_session(datetime(2013, 2, 2, 6, tzinfo=tokyo)) == date(2013, 2, 1)
    assert XNYS.last_complete_session(datetime(2013, 2, 2, 5, 59, tzinfo=tokyo)) == date(2013, 1, 31)


def test_day_at_the_exchange_differs_from_the_day_in_utc():
    assert XNYS.local_date(datetime(2013, 2, 2, 4, 59, tzinfo=UTC)) == date(2013, 2, 1)
    assert XNYS.local_date(datetime(2013, 2, 2, 5, tzinfo=UTC)) == date(2013, 2, 2)


def test_naive_instant_is_refused():
    with pytest.raises(ValueError, match="has no time zone"):
        XNYS.local_date(datetime(2013, 2, 1, 21))  # noqa: DTZ001 - the point of this test
    with pytest.raises(ValueError, match="has no time zone"):
        XNYS.last_complete_session(datetime(2013, 2, 1, 21))  # noqa: DTZ001 - the point of this test


@pytest.mark.parametrize(
    "ask",
    [
        lambda calendar: calendar.is_session(date(1989, 12, 29)),
        lambda calendar: calendar.session_at_or_before(date(1990, 1, 1)),  # covered, but no session before it
        lambda calendar: calendar.next_session(date(2040, 12, 31)),
        lambda calendar: calendar.close_instant(date(2041, 1, 2)),
        lambda calendar: calendar.last_complete_session(datetime(1990, 1, 2, 12, tzinfo=UTC)),
        lambda calendar: calendar.last_complete_session(datetime(2041, 1, 2, 12, tzinfo=UTC)),
        lambda calendar: calendar.sessions_between(date(2040, 1, 2), date(2041, 1, 2)),
        lambda calendar: calendar.sessions_between(date(1980, 1, 2), date(2000, 1, 2)),
    ],
)
def test_days_outside_the_range_are_refused(ask):
    with pytest.raises(CalendarRange, match="1990-01-01 to 2040-12-31"):
        ask(XNYS)


def test_close_of_a_holiday_is_refused():
    with pytest.raises(ValueError, match="2013-01-01 is not a session of XNYS"):
        XNYS.close_instant(date(2013, 1, 1))


def test_next_session_refuses_zero_steps():
    with pytest.raises(ValueError, match="n was 0"):
        XNYS.next_session(date(2013, 1, 1), 0)


def test_explicit_bounds_cut_the_calendar():
    calendar = SessionCalendar("XNYS", date(2013, 1, 1), date(2013, 12, 31))

    assert len(calendar.sessions) == 252
    with pytest.raises(CalendarRange):
        calendar.is_session(date(2014, 1, 2))


def test_unknown_calendar_is_refused_by_name():
    with pytest.raises(UnknownCalendar, match="'NOPE'"):
        SessionCalendar("NOPE")


@pytest.mark.parametrize("name", ["XTAE", "ASEX"])
def test_calendar_that_the_library_cannot_open_is_named_with_its_reason(name):
    with pytest.raises(UnusableCalendar, match=f"'{name}' does not open: \\w+"):
        SessionCalendar(name)


def test_calendar_with_short_horizon_is_cut_to_what_is_known():
    calendar = SessionCalendar("XBOM")

    assert calendar.first == date(1997, 1, 1)
    assert calendar.last < date(2040, 12, 31)
    with pytest.raises(CalendarRange):
        SessionCalendar("XBOM", date(1990, 1, 1))


def test_sessions_between_includes_both_ends():
    sessions = XNYS.sessions_between(date(2013, 2, 1), date(2013, 2, 5))

    assert sessions.astype(str).tolist() == ["2013-02-01", "2013-02-04", "2013-02-05"]
    assert len(XNYS.sessions_between(date(2013, 2, 5), date(2013, 2, 1))) == 0


@settings(deadline=None)
@given(days)
def test_next_session_is_the_first_one_later(day):
    following = XNYS.next_session(day)

    assert XNYS.is_session(following)
    assert following > day
    assert XNYS.session_at_or_before(following - timedelta(days=1)) <= day


@settings(deadline=None)
@given(days, days)
def test_sessions_between_are_exactly_the_days_that_trade(first, last):
    last = min(max(first, last), first + timedelta(days=40))

    sessions = {session.astype(object) for session in XNYS.sessions_between(first, last)}

    span = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    assert sessions == {day for day in span if XNYS.is_session(day)}
