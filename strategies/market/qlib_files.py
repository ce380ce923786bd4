"""Qlib's binary directory: its calendar, instruments and fields, without Qlib.

Owns: the layout of `calendars/`, `instruments/` and `features/`.
Must not know: snapshots, which rows are true.
Invariant: read-only; a field's first number is the position of its first value on the calendar.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from strategies.errors import DataError
from strategies.market.bars import FloatArray, SessionArray
from strategies.market.columns import REQUIRED
from strategies.market.symbols import checked_symbol

FIELDS = (*REQUIRED[1:], "vwap", "factor")


def is_qlib_dir(path: Path) -> bool:
    """Return whether a folder is laid out as Qlib's binary data."""
    return (path / "calendars" / "day.txt").is_file() and (path / "features").is_dir()


def read_qlib_dir(path: Path) -> Iterator[tuple[str, SessionArray, dict[str, FloatArray]]]:
    """Return each symbol with its dates `[bars]` and fields `[bars]`; sessions without any value are left out.

    Raises:
        DataError: The directory contradicts itself.
    """
    try:
        days = np.array((path / "calendars" / "day.txt").read_text().split(), dtype="datetime64[D]")
        for folder in sorted(one for one in (path / "features").iterdir() if one.is_dir()):
            symbol = checked_symbol(folder.name, str(path))
            fields = {name: _field(folder / f"{name}.day.bin", len(days)) for name in FIELDS}
            known = {name: values for name, values in fields.items() if values is not None}
            missing = [name for name in REQUIRED[1:] if name not in known]
            if missing:
                raise DataError(f"{folder}: has no {', '.join(missing)}")
            kept = np.logical_or.reduce([~np.isnan(values) for values in known.values()])
            yield symbol, days[kept], {name: values[kept] for name, values in known.items()}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no binary directory of Qlib: {str(error)[:160]}") from error


def _field(path: Path, sessions: int) -> FloatArray | None:
    if not path.is_file():
        return None
    stored = np.fromfile(path, dtype="<f4")
    start = int(stored[0]) if len(stored) else 0
    if not 0 <= start <= start + len(stored) - 1 <= sessions:
        raise DataError(f"{path}: runs from {start} for {len(stored) - 1} sessions, the calendar has {sessions}")
    values = np.full(sessions, np.nan)
    values[start : start + len(stored) - 1] = stored[1:].astype(np.float64)
    return values
