"""Sessions of an exchange: which days trade, and when each one is complete.

Owns: `SessionCalendar`, the only door to `exchange_calendars`; calendars defined by a base and its exceptions.
Must not know: clocks, files, bars. Instants are handed in; nothing here asks what time it is.
Invariant: an answer is a session inside the covered range or a `CalendarRange` error, never a clipped guess.
"""

import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
from exchange_calendars import errors as calendar_errors

from strategies.errors import CalendarRange, DataError, UnknownCalendar, UnusableCalendar
from strategies.market.bars import BoolArray, IntArray, SessionArray

#: First day covered unless asked otherwise.
COVERED_FROM = date(1990, 1, 1)
#: Last day covered unless asked otherwise: a constant, because no clock is read here. Sessions this far ahead are
#: the rules of today; one-off closures of the future are not among them.
COVERED_TO = date(2040, 12, 31)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class SessionCalendar:
    """The sessions of one exchange between two days, with the instant at which each closes.

    Args:
        name: A code of `exchange_calendars` or an alias of one, such as `XNYS` or `NYSE`; with a definition, any name.
        first: First day covered; default 1990-01-01, or the library's own first day where that is later.
        last: Last day covered; default 2040-12-31, or the library's own last day where that is earlier.
        definition: `base` (a code), or `weekdays` (`mon` to `sun`), `close` (`HH:MM`) and `zone`; with either `added`
            and `removed` (days). What a file `calendars/<name>.yaml` states.

    Raises:
        DataError: The definition contradicts itself.
        UnknownCalendar: The library has no calendar of that name.
        UnusableCalendar: It has one and cannot open it.
        CalendarRange: `first` or `last` was given and is outside what the library knows.
    """

    def __init__(
        self,
        name: str = "XNYS",
        first: date | None = None,
        last: date | None = None,
        *,
        definition: Mapping[str, Any] | None = None,
    ) -> None:
        #: What the calendar is made of, if not of the library alone.
        self.definition = None if definition is None else dict(definition)
        if definition is None or "base" in definition:
            code = canonical_name(str(definition["base"]) if definition else name)
            calendar = _open(code, first, last)
            self.first: date = first or max(COVERED_FROM, _day(calendar.bound_min()) or COVERED_FROM)
            self.last: date = last or min(COVERED_TO, _day(calendar.bound_max()) or COVERED_TO)
            sessions = calendar.sessions.to_numpy().astype("datetime64[D]")
            closes = calendar.closes.dt.tz_convert(None).to_numpy().astype("datetime64[s]").astype(np.int64)
            self._zone: tzinfo = calendar.tz
        else:
            code = name
            self.first, self.last = first or COVERED_FROM, last or COVERED_TO
            self._zone = _zone(definition)
            sessions = _weekly(definition, self.first, self.last)
            closes = _closes(sessions, _close_time(definition), self._zone)
        if definition is not None:
            sessions, closes = _excepted(definition, sessions, closes, self._zone)
        #: Code of the exchange, never an alias; the name of the definition where there is one.
        self.name = name if definition is not None else code
        self._sessions: SessionArray = sessions
        self._sessions.setflags(write=False)
        self._closes: IntArray = closes

    @property
    def zone(self) -> tzinfo:
        """Return the zone of the exchange."""
        return self._zone

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

    def contains(self, days: SessionArray) -> BoolArray:
        """Return which days are sessions, `[days]`; NaT and days that are not covered are none."""
        # np.isin would sort, or hash, all sessions for each symbol.
        at = np.searchsorted(self._sessions, days)
        contained: BoolArray = self._sessions[np.minimum(at, len(self._sessions) - 1)] == days
        return contained

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


@cache
def canonical_name(name: str) -> str:
    """Return the code that an alias names, such as XNYS for NYSE; any other name as it is."""
    try:
        return str(exchange_calendars.resolve_alias(name))
    except calendar_errors.InvalidCalendarName:
        return name  # whoever opens it learns so


def known_calendars() -> tuple[str, ...]:
    """Return the codes of `exchange_calendars` that open, aliases left out."""
    return tuple(exchange_calendars.get_calendar_names(include_aliases=False))


def _zone(definition: Mapping[str, Any]) -> ZoneInfo:
    try:
        return ZoneInfo(str(definition["zone"]))
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"a calendar without a base needs a zone, such as Asia/Kathmandu: {error}") from error


def _close_time(definition: Mapping[str, Any]) -> time:
    try:
        return time.fromisoformat(str(definition["close"]))
    except (KeyError, ValueError) as error:
        raise DataError(f"a calendar without a base needs a close, such as '15:00': {error}") from error


def _weekly(definition: Mapping[str, Any], first: date, last: date) -> SessionArray:
    names = [str(name).lower()[:3] for name in definition.get("weekdays", ())]
    if not names or not set(names) <= set(WEEKDAYS):
        raise DataError(f"a calendar without a base needs weekdays, of {', '.join(WEEKDAYS)}; they were {names}")
    days = np.arange(np.datetime64(first, "D"), np.datetime64(last, "D") + np.timedelta64(1, "D"))
    # Day 0 of the epoch was a Thursday.
    chosen: SessionArray = days[np.isin((days.astype(np.int64) + 3) % 7, [WEEKDAYS.index(name) for name in names])]
    return chosen


def _closes(sessions: SessionArray, close: time, zone: tzinfo) -> IntArray:
    instants = [datetime.combine(day, close, zone).timestamp() for day in sessions.astype(object).tolist()]
    return np.array(instants, dtype=np.int64)


def _excepted(
    definition: Mapping[str, Any], sessions: SessionArray, closes: IntArray, zone: tzinfo
) -> tuple[SessionArray, IntArray]:
    """Return the sessions and closes without the removed and with the added days."""
    added, removed = (_listed_days(definition, name) for name in ("added", "removed"))
    both = np.intersect1d(added, removed)
    if len(both):
        raise DataError(f"a calendar adds and removes {both[0]}")
    kept = ~np.isin(sessions, removed)
    sessions, closes = sessions[kept], closes[kept]
    new = added[~np.isin(added, sessions)]
    if len(new):
        # An added session closes when most do.
        close = _close_time(definition) if "close" in definition else _usual_close(closes, zone)
        sessions, closes = np.concatenate((sessions, new)), np.concatenate((closes, _closes(new, close, zone)))
        order = np.argsort(sessions)
        sessions, closes = sessions[order], closes[order]
    return sessions, closes


def _usual_close(closes: IntArray, zone: tzinfo) -> time:
    local = [datetime.fromtimestamp(int(close), tz=zone).time() for close in closes[-250:]]
    return max(set(local), key=local.count)


def _listed_days(definition: Mapping[str, Any], name: str) -> SessionArray:
    listed = definition.get(name) or ()
    try:
        days = [one if type(one) is date else date.fromisoformat(str(one)) for one in listed]
    except (ValueError, TypeError) as error:
        raise DataError(f"a calendar's {name} days must be dates: {error}") from error
    return np.array(sorted(set(days)), dtype="datetime64[D]")


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
