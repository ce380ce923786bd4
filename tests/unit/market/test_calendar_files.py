from datetime import UTC, date, datetime

import numpy as np
import pytest

from strategies.errors import DataError, UnknownCalendar
from strategies.market.calendar import SessionCalendar
from strategies.market.calendar_files import definition_of_dates, open_calendar, write_definition
from strategies.market.exchanges import foreign_hint, sessions_without_bars


def write(folder, text, name="MUMBAI"):
    path = folder / "calendars" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("alias", ["NYSE", "XNAS", "NASDAQ", "BATS"])
def test_alias_is_the_calendar_it_names(alias):
    assert SessionCalendar(alias).name == "XNYS"


def test_sessions_are_added_to_and_removed_from_an_exchange(tmp_path):
    write(tmp_path, "base: XBOM\nadded: [2024-01-20, 2024-03-02]\nremoved: ['2024-03-04']\n")

    calendar = open_calendar("MUMBAI", tmp_path)

    assert (calendar.name, calendar.definition["base"]) == ("MUMBAI", "XBOM")
    for day, session in ((date(2024, 1, 20), True), (date(2024, 3, 2), True), (date(2024, 3, 4), False)):
        assert calendar.is_session(day) == session
    # Mumbai closes at 15:30, which is 10:00 UTC.
    assert calendar.close_instant(date(2024, 1, 20)) == datetime(2024, 1, 20, 10, 0, tzinfo=UTC)
    assert calendar.next_session(date(2024, 1, 19)) == date(2024, 1, 20)


def test_market_that_no_library_knows_is_weekdays_with_exceptions(tmp_path):
    write(
        tmp_path,
        "zone: Asia/Kathmandu\nclose: '15:00'\nweekdays: [sun, mon, tue, wed, thu]\nremoved: [2024-06-17]",
        "NEPSE",
    )

    calendar = open_calendar("NEPSE", tmp_path)

    days = [date(2024, 6, day) for day in range(14, 21)]
    assert [calendar.is_session(day) for day in days] == [False, False, True, False, True, True, True]
    assert calendar.close_instant(date(2024, 6, 16)) == datetime(2024, 6, 16, 9, 15, tzinfo=UTC)


def test_calendar_made_of_dates_has_exactly_these_sessions(tmp_path):
    own = SessionCalendar("XBOM").sessions_between(date(2023, 1, 2), date(2024, 3, 28))
    dates = np.union1d(own, np.array(["2024-01-20", "2024-03-02"], dtype="datetime64[D]"))

    write_definition(tmp_path, definition_of_dates("MINE", dates, zone="Asia/Kolkata", close="15:30"))
    calendar = open_calendar("MINE", tmp_path)

    np.testing.assert_array_equal(calendar.sessions_between(date(2023, 1, 2), date(2024, 3, 28)), dates)
    # Beyond them it goes on by weekday.
    assert calendar.is_session(date(2024, 4, 1))
    assert not calendar.is_session(date(2024, 4, 6))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "is no calendar"),
        ("base: XBOM\nhours: 7", "unknown keys hours"),
        ("added: [2024-01-20]", "must state a base, or weekdays"),
        ("weekdays: [mon]", "needs a zone"),
        ("weekdays: [mon]\nzone: Mars/Base", "needs a zone"),
        ("weekdays: [mon]\nzone: UTC", "needs a close"),
        ("weekdays: [someday]\nzone: UTC\nclose: '15:00'", "needs weekdays"),
        ("base: XBOM\nadded: [soon]", "added days must be dates"),
        ("base: XBOM\nadded: [2024-01-20]\nremoved: [2024-01-20]", "adds and removes 2024-01-20"),
        ("base: NOPE", "unknown exchange calendar 'NOPE'"),
    ],
)
def test_file_that_is_no_calendar_is_refused(tmp_path, text, sentence):
    write(tmp_path, text)

    with pytest.raises(DataError, match=sentence):
        open_calendar("MUMBAI", tmp_path)


def test_name_of_no_file_and_no_library_is_unknown(tmp_path):
    with pytest.raises(UnknownCalendar, match=r"nor is there a file calendars/NOPE\.yaml"):
        open_calendar("NOPE", tmp_path)


def test_hint_names_the_exchange_whose_sessions_the_dates_are():
    shanghai = SessionCalendar("XSHG").sessions_between(date(2020, 1, 2), date(2023, 12, 29))

    hint = foreign_hint(shanghai, SessionCalendar("XNYS"))

    assert "100% of the dates are sessions of XSHG" in hint
    assert "of the dates are sessions of XNYS" in hint


def test_calendar_that_is_far_too_wide_is_remarked_on():
    york = SessionCalendar("XNYS").sessions_between(date(2023, 1, 3), date(2023, 12, 29))

    remark = sessions_without_bars(york, SessionCalendar("24/7"))

    assert "111 of 361 sessions of 24/7 have no bar of any symbol" in remark
    assert "100% of the dates are sessions of" in remark
    assert sessions_without_bars(york, SessionCalendar("XNYS")) == ""
