"""Calendars in files: an exchange calendar with sessions added and removed, or a market that no library knows.

Owns: where `calendars/<name>.yaml` is looked for, its reading and writing, a definition made of bars' own dates.
Must not know: how sessions are computed, bars.
Invariant: a name is one calendar: a file of that name comes before the library, and a snapshot keeps its definition.
"""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from strategies.errors import DataError, UnknownCalendar
from strategies.files import write_synced
from strategies.market.bars import SessionArray
from strategies.market.calendar import WEEKDAYS, SessionCalendar

FOLDER = "calendars"
#: Largest file that is read, in bytes: 50 years of exceptions.
MAX_BYTES = 1024**2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}")
#: Keys of a file.
KEYS = ("name", "base", "zone", "close", "weekdays", "added", "removed")
#: Share of the weeks in which a weekday must have bars to count as a day of trading.
WEEKLY_SHARE = 0.5


def open_calendar(name: str, data_dir: Path | None = None) -> SessionCalendar:
    """Return the calendar of a name: a file's, or that of `exchange_calendars`.

    Args:
        name: A code, an alias, the name of a file `calendars/<name>.yaml`, or the path of such a file.
        data_dir: `calendars/` is looked for below it, then below the working directory.

    Raises:
        DataError: The file is no calendar.
        UnknownCalendar: There is no such calendar.
    """
    path = calendar_file(name, data_dir)
    if path is not None:
        definition = read_definition(path)
        return SessionCalendar(str(definition.get("name", path.stem)), definition=definition)
    try:
        return SessionCalendar(name)
    except UnknownCalendar as error:
        raise UnknownCalendar(name, f"nor is there a file {FOLDER}/{name}.yaml") from error


def calendar_file(name: str, data_dir: Path | None = None) -> Path | None:
    """Return the file that defines a calendar, if there is one."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if not NAME.fullmatch(name):
        return None
    folders = [data_dir / FOLDER] if data_dir is not None else []
    places = [folder / f"{name}.yaml" for folder in (*folders, Path(FOLDER))]
    return next((place for place in places if place.is_file()), None)


def read_definition(path: Path) -> dict[str, Any]:
    """Return what a file states.

    Raises:
        DataError: It cannot be read, or has unknown keys.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: is no calendar: {(str(error).splitlines() or ['?'])[0][:160]}") from error
    if not isinstance(stated, dict) or not ("base" in stated or "weekdays" in stated):
        raise DataError(f"{path}: is no calendar: it must state a base, or weekdays with a zone and a close")
    unknown = sorted(str(key) for key in stated if key not in KEYS)
    if unknown:
        raise DataError(f"{path}: unknown keys {', '.join(unknown)}; the keys are {', '.join(KEYS)}")
    return {"name": path.stem} | stated


def definition_of_dates(name: str, dates: SessionArray, *, zone: str, close: str) -> dict[str, Any]:
    """Return a calendar whose sessions, in the range of the dates, are exactly these dates.

    Beyond the last of them it trades on the weekdays of which more than half had bars.

    Args:
        name: Of the calendar.
        dates: Days with a bar of any symbol.
        zone: Such as Asia/Kathmandu.
        close: Local time of the close, `HH:MM`.

    Raises:
        DataError: There are fewer than 10 days.
    """
    days = np.unique(dates[~np.isnat(dates)])
    if len(days) < 10:  # noqa: PLR2004 - two weeks
        raise DataError(f"{len(days)} days are too few to make the calendar {name} of, 10 are needed")
    weekday = (days.astype(np.int64) + 3) % 7
    span = np.arange(days[0], days[-1] + np.timedelta64(1, "D"))
    all_weekdays = (span.astype(np.int64) + 3) % 7
    share = np.bincount(weekday, minlength=7) / np.maximum(np.bincount(all_weekdays, minlength=7), 1)
    chosen = np.flatnonzero(share > WEEKLY_SHARE)
    regular = span[np.isin(all_weekdays, chosen)]
    return {
        "name": name,
        "zone": zone,
        "close": close,
        "weekdays": [WEEKDAYS[at] for at in chosen],
        "added": _days(np.setdiff1d(days, regular)),
        "removed": _days(np.setdiff1d(regular, days)),
    }


def write_definition(folder: Path, definition: Mapping[str, Any]) -> Path:
    """Write `calendars/<name>.yaml` below a folder and return its path."""
    path = folder / FOLDER / f"{definition['name']}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_synced(path, yaml.safe_dump(dict(definition), sort_keys=False).encode())
    return path


def _days(days: SessionArray) -> list[date]:
    return list(days.astype(object).tolist())
