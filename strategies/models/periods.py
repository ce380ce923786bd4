"""Training, validation and test periods on the sessions of a panel.

Owns: the chronological split, the gap that keeps labels out of the next period, the mapping of dates to sessions.
Must not know: features, models, files.
Invariant: no label of an earlier period reads a bar of a later one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np

from strategies.errors import TrainingError
from strategies.market.bars import SessionArray
from strategies.models.configuration import Periods, TrainingConfig
from strategies.models.manifest import Period

#: Half-open ranges of sessions to train, validate and test on, in order of time.
Ranges = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Half-open ranges of session indices in the panel."""

    train: slice
    valid: slice
    test: slice

    def __iter__(self) -> Iterator[tuple[str, slice]]:
        return iter((("train", self.train), ("valid", self.valid), ("test", self.test)))


def split_sessions(sessions: SessionArray, config: TrainingConfig) -> Split:
    """Return the three periods; the end of train and of valid is cut back by the configuration's gap.

    With dates of its own, a period that already keeps the distance is left as it is.

    Raises:
        TrainingError: A period has no session left.
    """
    ranges = ranges_by_date(sessions, config.periods) if config.periods else _by_share(len(sessions), config)
    return keep_apart(ranges, sessions, config.gap)


def keep_apart(ranges: Ranges, sessions: SessionArray, gap: int, *, place: str = "") -> Split:
    """Return the periods with the end of train and of valid cut back where they lie nearer than `gap` to the next.

    Raises:
        TrainingError: A period has no session left; `place` says which fold's it was.
    """
    train, valid, test = ranges
    split = Split(
        train=slice(train.start, min(train.stop, valid.start - gap)),
        valid=slice(valid.start, min(valid.stop, test.start - gap)),
        test=test,
    )
    for name, period in split:
        if period.stop <= period.start:
            raise TrainingError(
                f"the {name} period{place} has no session: the snapshot runs from {sessions[0]} to {sessions[-1]} "
                f"({len(sessions)} sessions), with a gap of {gap} between periods"
            )
    return split


def ranges_by_date(sessions: SessionArray, periods: Periods) -> Ranges:
    """Return the ranges of sessions that lie in three periods of dates."""
    return _range(sessions, periods.train), _range(sessions, periods.valid), _range(sessions, periods.test)


def period_of(sessions: SessionArray, period: slice) -> Period:
    """Return the dates of a range of sessions."""
    first, last = (sessions[index].astype(object) for index in (period.start, period.stop - 1))
    return Period(first=first, last=last)


def _by_share(count: int, config: TrainingConfig) -> Ranges:
    train = int(count * config.shares.train)
    valid = int(count * (config.shares.train + config.shares.valid))
    return slice(0, train), slice(train, valid), slice(valid, count)


def _range(sessions: SessionArray, period: Period) -> slice:
    start = int(np.searchsorted(sessions, _day(period.first)))
    return slice(start, int(np.searchsorted(sessions, _day(period.last), side="right")))


def _day(day: date) -> np.datetime64:
    return np.datetime64(day, "D")
