"""Sessions of an exchange: which days trade, and when each one is complete.

Owns: `SessionCalendar`, the only door to `exchange_calendars`.
Must not know: clocks, files, bars. Instants are handed in; nothing here asks what time it is.
Invariant: an answer is a session inside the covered range or a `CalendarRange` error, never a clipped guess.
"""

import warnings
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

import exchange_calendars
import numpy as np
from exchange_calendars import errors as calendar_errors

from strategies.errors import CalendarRange, UnknownCalendar, UnusableCalendar
from strategies.market.bars import IntArray, SessionArray

#: First day covered unless asked otherwise.
COVERED_FROM = date(1990, 1, 1)
#: Last day covered unless asked otherwise: a constant, because no clock is read here. Sessions this far ahead are
#: the rules of today; one-off closures of the future are not among them.
COVERED_TO = date(2040, 12, 31)


class SessionCalendar:
    """The sessions of one exchange between two days, with the instant at which each closes.

    Args:
        name: A code of `exchange_calendars`, such as `XNYS`.
        first: First day covered; default 1990-01-01, or the library's own first day where that is later.
        last: Last day covered; default 2040-12-31, or the library's own last day where that is earlier.

    Raises:
        UnknownCalendar: The library has no calendar of that name.
        UnusableCalendar: It has one and cannot open it.
        CalendarRange: `first` or `last` was given and lies outside what the library knows.
    """

    def __init__(self, name: str = "XNYS", first: date | None = None, last: date | None = None) -> None:
        calendar = _open(name, first, last)
        #: Code of the exchange.
        self.name = name
        #: First and last day covered, sessions or not.
        self.first: date = first or max(COVERED_FROM, _day(calendar.bound_min()) or COVERED_FROM)
        self.last: date = last or min(COVERED_TO, _day(calendar.bound_max()) or COVERED_TO)
        self._sessions: SessionArray = calendar.sessions.to_numpy().astype("datetime64[D]")
        self._sessions.setflags(write=False)
        closes = calendar.closes.dt.tz_convert(None).to_numpy()
        self._closes: IntArray = closes.astype("datetime64[s]").astype(np.int64)
        self._zone: tzinfo = calendar.tz

    @property
    def sessions(self) -> SessionArray:
        """Return every covered session, ascending."""
        return self._sessions

    def is_session(self, day: date) -> bool:
        """Return whether the exchange trades on that day.

        Raises:
            CalendarRange: The day is not covered.
        """
        position = self._position_at_or_before(day)
        return position >= 0 and bool(self._sessions[position] == np.datetime64(day, "D"))

    def session_at_or_before(self, day: date) -> date:
        """Return the day itself where it is a session, else the last session before it.

        Raises:
            CalendarRange: The day is not covered, or no session of the covered range lies before it.
        """
        return self._session(self._position_at_or_before(day), day)

    def next_session(self, day: date, n: int = 1) -> date:
        """Return the n-th session strictly after the day.

        Raises:
            CalendarRange: The day or the answer is not covered.
        """
        if n < 1:
            raise ValueError(f"n was {n}, must be at least 1")
        return self._session(self._position_at_or_before(day) + n, day + timedelta(days=n))

    def close_instant(self, day: date) -> datetime:
        """Return the instant, in UTC, at which the session closes; half days close early.

        Raises:
            CalendarRange: The day is not covered.
            ValueError: The day is covered and not a session.
        """
        if not self.is_session(day):
            raise ValueError(f"{day} is not a session of {self.name}")
        return datetime.fromtimestamp(int(self._closes[self._position_at_or_before(day)]), tz=UTC)

    def last_complete_session(self, instant: datetime, *, settle_minutes: int = 0) -> date:
        """Return the last session that had closed, `settle_minutes` ago or earlier, at that instant.

        Raises:
            CalendarRange: The instant is not covered, or lies before the first session's close.
            ValueError: The instant has no time zone.
        """
        if instant.tzinfo is None:
            raise ValueError(f"instant {instant.isoformat()} has no time zone")
        self._refuse_uncovered(instant.astimezone(UTC).date())  # before the subtraction: the year 1 has no yesterday
        settled = instant.astimezone(UTC) - timedelta(minutes=settle_minutes)
        self._refuse_uncovered(settled.date())
        closed = int(np.searchsorted(self._closes, np.floor(settled.timestamp()), side="right"))
        return self._session(closed - 1, settled.date())

    def local_date(self, instant: datetime) -> date:
        """Return which day it is at the exchange at that instant.

        Raises:
            ValueError: The instant has no time zone.
        """
        if instant.tzinfo is None:
            raise ValueError(f"instant {instant.isoformat()} has no time zone")
        return instant.astimezone(self._zone).date()

    def sessions_between(self, first: date, last: date) -> SessionArray:
        """Return the sessions from `first` to `last`, both included; empty where `last` lies before `first`.

        Raises:
            CalendarRange: One of the days is not covered.
        """
        self._refuse_uncovered(first)
        start = int(np.searchsorted(self._sessions, np.datetime64(first, "D"), side="left"))
        return self._sessions[start : self._position_at_or_before(last) + 1]

    def _position_at_or_before(self, day: date) -> int:
        self._refuse_uncovered(day)
        return int(np.searchsorted(self._sessions, np.datetime64(day, "D"), side="right")) - 1

    def _session(self, position: int, asked: date) -> date:
        if not 0 <= position < len(self._sessions):
            raise CalendarRange(asked, self.first, self.last)
        session: date = self._sessions[position].astype(object)
        return session

    def _refuse_uncovered(self, day: date) -> None:
        if not self.first <= day <= self.last:
            raise CalendarRange(day, self.first, self.last)


def _open(name: str, first: date | None, last: date | None) -> Any:  # noqa: ANN401 - the library has no types
    start, end = first or COVERED_FROM, last or COVERED_TO
    try:
        return _build(name, start=start.isoformat(), end=end.isoformat())
    except calendar_errors.InvalidCalendarName as error:
        raise UnknownCalendar(name) from error
    except (ValueError, NotImplementedError):
        pass  # some exchanges announce holidays only a year ahead
    try:
        # Asking for their bounds costs a second calendar.
        known = _build(name)
        lower, upper = _day(known.bound_min()) or start, _day(known.bound_max()) or end
        for asked in (first, last):
            if asked is not None and not lower <= asked <= upper:
                raise CalendarRange(asked, lower, upper)
        return _build(name, start=max(start, lower).isoformat(), end=min(end, upper).isoformat())
    except (ValueError, NotImplementedError) as error:
        # Some contradict themselves outside a few years, or were never finished.
        raise UnusableCalendar(name, str(error) or type(error).__name__) from error


def _build(name: str, **bounds: str) -> Any:  # noqa: ANN401 - the library has no types
    with warnings.catch_warnings():
        # exchange_calendars 4.13 uses what pandas 3.1 announces to change; its results are not affected.
        warnings.simplefilter("ignore", DeprecationWarning)
        return exchange_calendars.get_calendar(name, **bounds)


def _day(bound: Any) -> date | None:  # noqa: ANN401 - a pandas timestamp or None
    day: date | None = None if bound is None else bound.date()
    return day
