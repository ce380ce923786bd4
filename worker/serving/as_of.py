"""Which session a request means.

Owns: the step from a requested day or instant to the last complete session at or before it.
Must not know: bars; the clock is handed in.
Invariant: a session that is still running, or has not begun, is never the answer.
"""

from datetime import date, datetime, timedelta
from typing import Literal

from strategies.errors import AsOfInFuture
from strategies.market.calendar import SessionCalendar

#: How far a producer's clock may run ahead of ours before its "now" is the future.
CLOCK_SKEW = timedelta(seconds=5)


def resolve_as_of(
    requested: date | datetime | None,
    calendar: SessionCalendar,
    now: datetime,
    *,
    settle_minutes: int = 0,
    default: date | Literal["calendar"] = "calendar",
) -> date:
    """Return the last complete session at or before what was requested.

    Args:
        requested: A day of the exchange, an instant with a time zone, or none for the latest complete session.
        calendar: Sessions of the exchange.
        now: The instant of asking, with a time zone.
        settle_minutes: Minutes after the close until a session counts as complete.
        default: The session to take where none is requested, if not the latest complete one.

    Raises:
        AsOfInFuture: The day or instant is after now.
        CalendarRange: It is outside the calendar.
    """
    complete = calendar.last_complete_session(now, settle_minutes=settle_minutes)
    if requested is None:
        return complete if default == "calendar" else min(default, complete)
    if isinstance(requested, datetime):
        if requested > now + CLOCK_SKEW:
            raise AsOfInFuture(requested.isoformat(), now.isoformat(timespec="seconds"))
        return calendar.last_complete_session(min(requested, now), settle_minutes=settle_minutes)
    if requested > calendar.local_date(now):
        raise AsOfInFuture(requested.isoformat(), now.isoformat(timespec="seconds"))
    return min(calendar.session_at_or_before(requested), complete)
