from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from strategies.market.calendar import SessionCalendar
from strategies.market.readers import read_days
from strategies.market.times import read_texts


def days(calendar, texts):
    times = read_texts(texts, np.arange(len(texts)), SessionCalendar(calendar))
    return ["" if np.isnat(day) else str(day) for day in times.days], dict(times.unreadable)


@pytest.mark.parametrize(
    ("calendar", "written", "session"),
    [
        ("XPAR", "2024-06-27 22:00:00+00:00", "2024-06-28"),
        ("XPAR", "2024-01-17T23:00:00Z", "2024-01-18"),
        ("XTKS", "2024-06-27 15:00:00+00:00", "2024-06-28"),
        ("XSHG", "2024-06-27T16:00:00.000Z", "2024-06-28"),
        ("XASX", "2024-06-27 14:00:00+0000", "2024-06-28"),
        ("XBOM", "2024-06-27 18:30:00 UTC", "2024-06-28"),
        ("XNYS", "2024-06-28T04:00:00Z", "2024-06-28"),
        ("XNYS", "2024-06-28 16:00:00-04:00", "2024-06-28"),
        ("XNYS", "2024-06-29 01:30:00+05:30", "2024-06-28"),
        ("XNYS", "20240628 16:00:00 US/Eastern", "2024-06-28"),
        ("XNYS", "20240628 16:00:00 EST", "2024-06-28"),
        ("XPAR", "2024-06-28T00:00:00+02:00[Europe/Paris]", "2024-06-28"),
        ("24/7", "2024-06-28T23:59:59Z", "2024-06-28"),
    ],
)
def test_an_instant_is_the_day_it_falls_on_at_the_exchange(calendar, written, session):
    assert days(calendar, [written]) == ([session], {})


@pytest.mark.parametrize(
    ("written", "session"),
    [
        ("2024-06-28", "2024-06-28"),
        ("2024/6/28", "2024-06-28"),
        ("2024.06.28", "2024-06-28"),
        ("20240628", "2024-06-28"),
        ("2024-06-28 00:00:00", "2024-06-28"),
        ("2024-06-28T09:30", "2024-06-28"),
        ("20240628153000", "2024-06-28"),
        ("20240628153000000", "2024-06-28"),
        ("202406281530", "2024-06-28"),
        ("28-JUN-2024", "2024-06-28"),
        ("28-Jun-24", "2024-06-28"),
        ("28 June 2024", "2024-06-28"),
        ("Jun 28, 2024", "2024-06-28"),
        ("28/06/2024", "2024-06-28"),
        ("06/28/2024", "2024-06-28"),
        ("28.06.2024", "2024-06-28"),
    ],
)
def test_dates_of_vendors_are_read_as_written(written, session):
    assert days("XBOM", [written]) == ([session], {})


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("calendar", ["XNYS", "XPAR", "XTKS", "XSHG", "XASX", "XBOM", "24/7"])
def test_epochs_of_every_unit_are_sessions_of_the_exchange(calendar, scale):
    exchange = SessionCalendar(calendar)
    sessions = exchange.sessions_between(*(np.datetime64(day).astype(object) for day in ("2024-01-02", "2024-07-01")))
    midnights = [int(np.datetime64(day, "s").astype(np.int64)) for day in sessions]
    local = [int(datetime(*day.timetuple()[:3], tzinfo=exchange.zone).timestamp()) for day in sessions.astype(object)]

    for seconds in (local, midnights):
        column = pa.chunked_array([pa.array([one * scale for one in seconds], pa.int64())])
        np.testing.assert_array_equal(read_days(column, exchange).days, sessions)
    as_float = pa.chunked_array([pa.array([float(one) for one in local], pa.float64())])
    np.testing.assert_array_equal(read_days(as_float, exchange).days, sessions)


def test_midnights_in_utc_are_dates_west_of_utc():
    written = [f"2024-06-{day}T00:00:00.000Z" for day in (24, 25, 26, 27, 28)]

    assert days("XNYS", written)[0] == [text[:10] for text in written]
    assert days("XNYS", written[2:3])[0] == ["2024-06-26"]


def test_evenings_stamped_at_midnight_in_utc_are_converted_where_they_fit_better():
    # 20:00 in New York of Monday to Friday.
    written = [f"2024-06-{day}T00:00:00Z" for day in (25, 26, 27, 28, 29)]

    assert days("XNYS", written)[0] == [f"2024-06-{day}" for day in (24, 25, 26, 27, 28)]


def test_times_that_lost_their_zone_are_read_as_midnights_of_the_exchange():
    written = [f"2024-06-{day} 22:00:00" for day in (23, 24, 25, 26, 27)]

    assert days("XPAR", written)[0] == [f"2024-06-{day}" for day in (24, 25, 26, 27, 28)]
    # A stamp of the evening after the close is a date of its own.
    evenings = [f"2024-06-{day} 21:30:00" for day in (24, 25, 26, 27, 28)]
    assert days("XPAR", evenings)[0] == [text[:10] for text in evenings]


def test_order_of_day_and_month_is_that_of_the_whole_column():
    assert days("XLON", ["03/06/2024", "13/06/2024"])[0] == ["2024-06-03", "2024-06-13"]
    assert days("XNYS", ["06/03/2024", "06/13/2024"])[0] == ["2024-06-03", "2024-06-13"]


def test_order_that_nothing_shows_is_no_date():
    # Both 2024-03-06 and 2024-06-03 are sessions.
    assert days("XNYS", ["03/06/2024"]) == ([""], {0: "03/06/2024"})


@pytest.mark.parametrize(
    "written", ["soon", "2024-02-30", "99", "2024-13-01", "25:00", "0", "-1", "1e9", "2024-06-28T25:00"]
)
def test_what_is_no_date_is_named(written):
    assert days("XNYS", [written, "2024-06-28"]) == (["", "2024-06-28"], {0: written})


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_with_a_zone_are_converted(unit):
    instants = pa.array(["2024-06-27T22:00:00Z", None]).cast(pa.timestamp(unit, "UTC"))

    times = read_days(pa.chunked_array([instants]), SessionCalendar("XPAR"))

    assert times.days.astype(str).tolist() == ["2024-06-28", "NaT"]
    assert times.unreadable == {}
