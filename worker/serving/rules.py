"""What the settings state about every request.

Owns: the step from settings to the rules of serving, and the calendar of their exchange.
Must not know: requests.
Invariant: a calendar that cannot be opened is refused as a setting, before anything connects.
"""

from pathlib import Path

from strategies.errors import DataError
from strategies.market.calendar import SessionCalendar
from strategies.market.calendar_files import open_calendar
from worker.errors import SettingsError
from worker.serving.pipeline import ServingRules
from worker.settings import Settings


def session_calendar(name: str, data_dir: Path | None = None) -> SessionCalendar:
    """Return the exchange's sessions, as far back and ahead as they are known.

    A file `calendars/<name>.yaml`, below the data directory or the working directory, comes before the library.

    Raises:
        SettingsError: There is no such exchange.
    """
    try:
        return open_calendar(name, data_dir)
    except DataError as error:
        raise SettingsError(f"setting calendar: {error}") from error


def rules_of(settings: Settings) -> ServingRules:
    """Return what the settings state about every request.

    Raises:
        SettingsError: There is no such exchange.
    """
    return ServingRules(
        calendar=session_calendar(settings.calendar, settings.data_dir),
        settle_minutes=settings.settle_minutes,
        stale_after_sessions=settings.stale_after_sessions,
        min_bars_share=settings.min_bars_share,
        default_as_of=settings.default_as_of,
        threads=settings.threads,
        explain_features=settings.explain_features,
        explain_symbols=settings.explain_symbols,
    )
