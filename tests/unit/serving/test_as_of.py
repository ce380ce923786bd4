from datetime import UTC, date, datetime

import pytest

from strategies.errors import AsOfInFuture, CalendarRange
from strategies.market.calendar import SessionCalendar
from worker.serving.as_of import resolve_as_of

CALENDAR = SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))
#: Friday; New York closes at 21:00 UTC in winter.
FRIDAY_AFTER_CLOSE = datetime(2013, 2, 1, 21, 0, tzinfo=UTC)
FRIDAY_IN_SESSION = datetime(2013, 2, 1, 20, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("requested", "now", "session"),
    [
        (None, FRIDAY_AFTER_CLOSE, date(2013, 2, 1)),
        (None, FRIDAY_IN_SESSION, date(2013, 1, 31)),
        (date(2013, 2, 1), FRIDAY_IN_SESSION, date(2013, 1, 31)),
        (date(2013, 2, 1), FRIDAY_AFTER_CLOSE, date(2013, 2, 1)),
        (date(2013, 1, 27), FRIDAY_AFTER_CLOSE, date(2013, 1, 25)),
        (date(2013, 1, 21), FRIDAY_AFTER_CLOSE, date(2013, 1, 18)),
        (datetime(2013, 1, 30, 20, 0, tzinfo=UTC), FRIDAY_AFTER_CLOSE, date(2013, 1, 29)),
        (datetime(2013, 1, 30, 21, 0, tzinfo=UTC), FRIDAY_AFTER_CLOSE, date(2013, 1, 30)),
        (date(2012, 11, 23), datetime(2012, 11, 23, 18, 0, tzinfo=UTC), date(2012, 11, 23)),
        (date(2012, 11, 23), datetime(2012, 11, 23, 17, 59, tzinfo=UTC), date(2012, 11, 21)),
    ],
    ids=[
        "latest after the close",
        "latest during the session",
        "today during the session",
        "today after the close",
        "a Sunday",
        "a holiday",
        "an instant during a session",
        "the instant of a close",
        "a half day after its early close",
        "a half day before its early close",
    ],
)
def test_as_of_is_the_last_complete_session(requested, now, session):
    assert resolve_as_of(requested, CALENDAR, now) == session


def test_settling_time_delays_a_session():
    now = datetime(2013, 2, 1, 21, 29, tzinfo=UTC)

    assert resolve_as_of(None, CALENDAR, now, settle_minutes=30) == date(2013, 1, 31)
    assert resolve_as_of(None, CALENDAR, now, settle_minutes=29) == date(2013, 2, 1)


def test_snapshot_default_never_runs_ahead_of_the_clock():
    assert resolve_as_of(None, CALENDAR, FRIDAY_AFTER_CLOSE, default=date(2013, 1, 15)) == date(2013, 1, 15)
    assert resolve_as_of(None, CALENDAR, FRIDAY_IN_SESSION, default=date(2013, 2, 1)) == date(2013, 1, 31)


@pytest.mark.parametrize(
    "requested", [date(2013, 2, 2), datetime(2013, 2, 1, 21, 0, 6, tzinfo=UTC)], ids=["tomorrow", "six seconds ahead"]
)
def test_future_is_refused_and_names_now(requested):
    with pytest.raises(AsOfInFuture) as caught:
        resolve_as_of(requested, CALENDAR, FRIDAY_AFTER_CLOSE.replace(microsecond=7))

    assert f"as_of {requested.isoformat()} " in str(caught.value)
    assert str(caught.value).endswith("now is 2013-02-01T21:00:00+00:00")


def test_clock_that_runs_little_ahead_is_not_the_future():
    ahead = datetime(2013, 2, 1, 21, 0, 5, tzinfo=UTC)

    assert resolve_as_of(ahead, CALENDAR, FRIDAY_AFTER_CLOSE) == date(2013, 2, 1)


def test_settling_time_applies_to_requested_instants():
    now = datetime(2013, 2, 1, 22, 0, tzinfo=UTC)

    assert resolve_as_of(now, CALENDAR, now, settle_minutes=61) == date(2013, 1, 31)
    assert resolve_as_of(now, CALENDAR, now, settle_minutes=60) == date(2013, 2, 1)
    assert resolve_as_of(date(2013, 2, 1), CALENDAR, now, settle_minutes=61) == date(2013, 1, 31)


def test_day_before_the_calendar_is_refused():
    with pytest.raises(CalendarRange, match="1700-01-01"):
        resolve_as_of(date(1700, 1, 1), CALENDAR, FRIDAY_AFTER_CLOSE)


def test_evening_in_new_york_is_still_its_own_day():
    evening = datetime(2013, 2, 2, 2, 0, tzinfo=UTC)

    with pytest.raises(AsOfInFuture):
        resolve_as_of(date(2013, 2, 2), CALENDAR, evening)


def test_first_instant_of_time_is_outside_the_calendar_whatever_the_settling():
    with pytest.raises(CalendarRange, match="0001-01-01"):
        resolve_as_of(datetime.min.replace(tzinfo=UTC), CALENDAR, FRIDAY_AFTER_CLOSE, settle_minutes=15)
