"""Times of rows: which session a vendor's date, instant or number means.

Owns: every way in which a date is written, and the choice between readings of a column.
Must not know: files, prices, clocks.
Invariant: an instant is converted to the exchange's zone, a date is taken as it is written; where a column may be read
in two ways, the one with more sessions of the calendar counts, and among equals the later day, which looks at nothing
ahead.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from strategies.market.bars import BoolArray, IntArray, SessionArray
from strategies.market.calendar import SessionCalendar

NAT = np.datetime64("NaT", "D")
#: Kinds of one written time: a day; an instant in microseconds since 1970 UTC; a local time in microseconds; day and
#: month in unknown order, as `first * 10^8 + second * 10^4 + year`.
DAY, INSTANT, LOCAL, EITHER = "day", "instant", "local", "either"
_DAY_US = 86_400_000_000
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = r"(?P<h>\d{1,2}):?(?P<mi>\d{2})(?::?(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
_ZONE = r"(?P<z>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?|[A-Z][A-Za-z]+(?:/[A-Za-z_+\-0-9]+){1,2}|[A-Z]{3,4})"
_AFTER = rf"(?:[T :;,_-]+{_CLOCK}(?:\s*{_ZONE})?(?:\s*\[[^\]]*\])?)?"
_TEXTS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?P<y>\d{{4}})([-/.])(?P<m>\d{{1,2}})\2(?P<d>\d{{1,2}}){_AFTER}",
        rf"(?P<y>(?:19|20|21)\d{{2}})(?P<m>\d{{2}})(?P<d>\d{{2}}){_AFTER}",
        r"(?P<y>(?:19|20|21)\d{2})(?P<m>\d{2})(?P<d>\d{2})(?P<h>\d{2})(?P<mi>\d{2})(?:(?P<s>\d{2})(?P<f>\d{0,6})?)?",
        rf"(?P<d>\d{{1,2}})[- /.](?P<mon>[A-Za-z]{{3,9}})[- /.,]+(?P<y>\d{{4}}|\d{{2}}){_AFTER}",
        rf"(?P<mon>[A-Za-z]{{3,9}})[- .]+(?P<d>\d{{1,2}}),? +(?P<y>\d{{4}}){_AFTER}",
    )
)
_EITHER = re.compile(rf"(?P<a>\d{{1,2}})([-/.])(?P<b>\d{{1,2}})\2(?P<y>\d{{4}}|\d{{2}}){_AFTER}")
_NUMBER = re.compile(r"(\d{9,20})(?:\.0*)?")
#: Largest epoch of each unit (the year 2200), with the microseconds of one.
_EPOCHS = ((7_258_118_400, 1_000_000), (7_258_118_400_000, 1_000), (7_258_118_400_000_000, 1))
#: Abbreviations that vendors put behind a time.
_ABBREVIATED = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "PST": -8, "PDT": -7, "JST": 9, "HKT": 8, "IST": 5.5}


@dataclass(slots=True, kw_only=True)
class Times:
    """The sessions that a column of times means."""

    #: `[rows]`; NaT where there is none, or none that can be read.
    days: SessionArray
    #: Row, from 0, to the text that could not be read.
    unreadable: dict[int, str] = field(default_factory=dict)
    #: How the column was read where there was a choice, for the report.
    reading: str = "dates as written"


def read_texts(texts: Sequence[str | None], codes: IntArray, calendar: SessionCalendar) -> Times:
    """Return the days of a column of texts.

    Args:
        texts: Every distinct text; None: no date.
        codes: Index of each row's text, `[rows]`.
        calendar: Gives the zone and the sessions.
    """
    parsed = [_parsed(text.strip()) if text else None for text in texts]
    days = np.full(len(texts), NAT)
    reading = "dates as written"
    by_kind: dict[str, list[int]] = {}
    for at, one in enumerate(parsed):
        if one is not None:
            by_kind.setdefault(one[0], []).append(at)
    readers: Mapping[str, Callable[[IntArray, SessionCalendar], tuple[SessionArray, str]]] = {
        INSTANT: days_of_instants,
        LOCAL: days_of_local_times,
        EITHER: _days_of_either,
    }
    for kind, places in by_kind.items():
        values = np.array([parsed[at][1] for at in places], np.int64)  # type: ignore[index]  # None is in no list
        if kind == DAY:
            days[places] = values.astype("datetime64[D]")
        else:
            days[places], reading = readers[kind](values, calendar)
    bad = np.isnat(days)
    rows = np.flatnonzero(bad[codes]) if bad.any() and len(codes) else codes[:0]
    unreadable = {int(row): str(texts[codes[row]]) for row in rows if texts[codes[row]]}
    return Times(
        days=days[codes] if len(codes) else np.empty(0, "datetime64[D]"), unreadable=unreadable, reading=reading
    )


def read_numbers(values: IntArray, known: BoolArray, calendar: SessionCalendar) -> Times:
    """Return the days of a column of whole numbers: YYYYMMDD, YYYYMMDDhhmmss, or an epoch in s, ms, µs or ns.

    Args:
        values: `[rows]`.
        known: Whether there is a number, `[rows]`.
        calendar: Gives the zone and the sessions.
    """
    distinct, codes = np.unique(np.where(known, values, 0), return_inverse=True)
    texts = [str(value) if value else None for value in distinct.tolist()]
    times = read_texts(texts, codes.astype(np.int64), calendar)
    zero = known & (values == 0)
    times.unreadable.update(dict.fromkeys(np.flatnonzero(zero).tolist(), "0"))
    return times


def days_of_instants(instants: IntArray, calendar: SessionCalendar) -> tuple[SessionArray, str]:
    """Return the exchange's day of each instant, and how they were read.

    Vendors also write a date as its midnight in UTC. West of UTC that is the evening before; if all instants are such
    midnights, they are dates unless the evenings fit the calendar better.

    Args:
        instants: Microseconds since 1970 UTC, `[rows]`.
        calendar: Gives the zone and the sessions.
    """
    local = _local_days(instants, calendar.zone)
    written = (instants // _DAY_US).astype("datetime64[D]")
    if (instants % _DAY_US == 0).all() and (local != written).any():
        if _sessions(local, calendar) > _sessions(written, calendar):
            return local, f"instants, in the zone {calendar.zone}"
        return written, "midnights in UTC, as dates"
    return local, f"instants, in the zone {calendar.zone}"


def days_of_local_times(times: IntArray, calendar: SessionCalendar) -> tuple[SessionArray, str]:
    """Return the day of each time that is written without a zone, and how they were read.

    Files that lost their zone hold the exchange's midnight in UTC. If all times are such midnights, and none a
    midnight of its own, they are read so unless the days as written fit the calendar better.

    Args:
        times: Microseconds since 1970 of a clock without a zone, `[rows]`.
        calendar: Gives the zone and the sessions.
    """
    written = (times // _DAY_US).astype("datetime64[D]")
    index = _local(times, calendar.zone)
    midnights = np.asarray(index == index.normalize())
    if midnights.all() and not (times % _DAY_US == 0).any():
        local = index.to_numpy().astype("datetime64[D]")
        if _sessions(local, calendar) >= _sessions(written, calendar):
            return local, f"midnights of the zone {calendar.zone}, written in UTC"
    return written, "dates as written"


def _days_of_either(values: IntArray, calendar: SessionCalendar) -> tuple[SessionArray, str]:
    """Return the days of `06/07/2024`: whichever order all of them allow, else that with more sessions."""
    first, second, year = values // 10**8, values // 10**4 % 10**4, values % 10**4
    day_first = _built(year, second, first)
    month_first = _built(year, first, second)
    counts = [(~np.isnat(days)).sum() for days in (day_first, month_first)]
    if counts[0] == counts[1]:
        counts = [_sessions(days, calendar) for days in (day_first, month_first)]
    if counts[0] == counts[1] and (day_first != month_first).any():
        return np.full(len(values), NAT), "dates as written"
    return (day_first, "day before month") if counts[0] > counts[1] else (month_first, "month before day")


def _built(year: IntArray, month: IntArray, day: IntArray) -> SessionArray:
    built = [_day(*parts) for parts in zip(year.tolist(), month.tolist(), day.tolist(), strict=True)]
    days: SessionArray = np.array([NAT if one is None else np.datetime64(one, "D") for one in built], "datetime64[D]")
    return days


def _sessions(days: SessionArray, calendar: SessionCalendar) -> int:
    return int(calendar.contains(days).sum())


def _local(instants: IntArray, zone: tzinfo) -> pd.DatetimeIndex:
    utc = pd.DatetimeIndex(instants.astype("datetime64[us]")).tz_localize("UTC")
    return utc.tz_convert(zone).tz_localize(None)


def _local_days(instants: IntArray, zone: tzinfo) -> SessionArray:
    days: SessionArray = _local(instants, zone).to_numpy().astype("datetime64[D]")
    return days


@lru_cache(maxsize=200_000)
def _parsed(text: str) -> tuple[str, int] | None:
    """Return the kind of a time and its value; None: it cannot be read."""
    for pattern in _TEXTS:
        found = pattern.fullmatch(text)
        if found:
            parts = found.groupdict()
            day = _day(_year(parts["y"]), _month(parts), int(parts["d"]))
            if day is not None:
                return _timed(day, parts)
    found = _EITHER.fullmatch(text)
    if found:
        return EITHER, int(found["a"]) * 10**8 + int(found["b"]) * 10**4 + _year(found["y"])
    found = _NUMBER.fullmatch(text)
    return _epoch(int(found[1])) if found else None


def _timed(day: date, parts: Mapping[str, str | None]) -> tuple[str, int] | None:
    if not parts.get("h"):
        return DAY, (day - date(1970, 1, 1)).days
    hour, minute, second = (int(parts.get(name) or 0) for name in ("h", "mi", "s"))
    if hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004 - a clock
        return None
    clock = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
    micro = int((parts.get("f") or "0").ljust(6, "0")[:6])
    zone = _zone(parts.get("z"))
    if parts.get("z") and zone is None:
        return None
    if zone is not None:
        clock = clock.replace(tzinfo=zone)
    since = clock - datetime(1970, 1, 1, tzinfo=UTC)
    value = since // timedelta(microseconds=1) + micro
    if zone is None and value % _DAY_US == 0:
        return DAY, value // _DAY_US
    return (LOCAL if zone is None else INSTANT), value


def _epoch(number: int) -> tuple[str, int] | None:
    for limit, micros in _EPOCHS:
        if number <= limit:
            return INSTANT, number * micros
    micros = number // 1000
    return (INSTANT, micros) if micros <= _EPOCHS[-1][0] else None


def _zone(text: str | None) -> tzinfo | None:
    if not text:
        return None
    if text in {"Z", "UTC", "GMT"}:
        return UTC
    if text in _ABBREVIATED:
        return timezone(timedelta(hours=_ABBREVIATED[text]))
    if text[0] in "+-":
        digits = text[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return timezone(-offset if text[0] == "-" else offset) if offset < timedelta(hours=24) else None
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        return None


def _year(text: str | None) -> int:
    year = int(text or 0)
    return year if year > 99 else year + (2000 if year < 70 else 1900)  # noqa: PLR2004 - as POSIX reads two digits


def _month(parts: Mapping[str, str | None]) -> int:
    name = parts.get("mon")
    if name is None:
        return int(parts["m"] or 0)
    return _MONTHS.index(name[:3].lower()) + 1 if name[:3].lower() in _MONTHS else 0


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
