"""Periods and walk-forward folds: which sessions each model is trained, stopped and tested on.

Owns: the chronological split, the gap and purge before a period, the embargo after a test period, the dates of ranges.
Must not know: features, models, files.
Invariant: no label of an earlier period reads a bar of a later one; test periods follow each other, so that each
session is predicted at most once. Every range of a plan counts sessions from the start of its span.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np

from strategies.errors import TrainingError
from strategies.market.bars import IntArray, SessionArray
from strategies.models.configuration import Lengths, Periods, TrainingConfig, WalkForward
from strategies.models.manifest import MAX_FOLDS, Period

#: Half-open ranges of sessions to train, validate and test on, in order of time.
Ranges = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Half-open ranges of session indices."""

    train: slice
    valid: slice
    test: slice

    def __iter__(self) -> Iterator[tuple[str, slice]]:
        return iter((("train", self.train), ("valid", self.valid), ("test", self.test)))

    def counted_from(self, start: int) -> "Split":
        """Return the same sessions, counted from the session at index `start`."""
        return Split(**{name: slice(period.start - start, period.stop - start) for name, period in self})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The periods of one model, and the sessions of them that embargoes exclude."""

    #: Counted from 1; 0 = the final model, which is no fold.
    number: int = 0
    split: Split
    #: Ranges of sessions after earlier test periods, which no model learns from.
    embargoes: tuple[slice, ...] = ()

    @property
    def train(self) -> IntArray:
        """Return the indices of the sessions to train on, ascending."""
        return self._outside_embargoes(self.split.train)

    @property
    def valid(self) -> IntArray:
        """Return the indices of the sessions that decide when boosting stops, ascending."""
        return self._outside_embargoes(self.split.valid)

    @property
    def embargoed_sessions(self) -> int:
        """Return how many sessions of both periods are excluded."""
        train, valid = self.split.train, self.split.valid
        learnt = len(self.train) + len(self.valid)
        return len(range(train.start, train.stop)) + len(range(valid.start, valid.stop)) - learnt

    @property
    def place(self) -> str:
        """Return which fold this is, for a sentence."""
        return f" of fold {self.number}" if self.number else ""

    def _outside_embargoes(self, period: slice) -> IntArray:
        indices = np.arange(period.start, period.stop, dtype=np.int64)
        for embargo in self.embargoes:
            indices = indices[(indices < embargo.start) | (indices >= embargo.stop)]
        return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldPlan:
    """The folds of one training run, and the final model's periods."""

    #: Range of the panel's sessions that any model learns from or is tested on; all other ranges count from its start.
    span: slice
    folds: tuple[Fold, ...]
    final: Fold

    @property
    def tested(self) -> IntArray:
        """Return the indices of the sessions that a fold tests, ascending."""
        periods = [np.arange(fold.split.test.start, fold.split.test.stop, dtype=np.int64) for fold in self.folds]
        return np.concatenate([np.empty(0, dtype=np.int64), *periods])


def plan_folds(sessions: SessionArray, config: TrainingConfig) -> FoldPlan:
    """Return the folds of a configuration, in order of time, and the final model's periods.

    The final model keeps the embargo after every fold's test period: it is trained as one more fold would be.

    Raises:
        TrainingError: A period has no session left, no fold fits into the snapshot, or too many do.
    """
    final = split_sessions(sessions, config)
    rule = config.walk_forward
    splits = [
        keep_apart(ranges, sessions, config.gap, place=f" of fold {number}")
        for number, ranges in enumerate(_ranges(sessions, rule, config.gap) if rule else (), start=1)
    ]
    start = min(split.train.start for split in (*splits, final))
    stop = max(split.test.stop for split in (*splits, final))
    splits = [split.counted_from(start) for split in splits]
    embargo = rule.embargo_sessions if rule else 0
    embargoes = tuple(slice(split.test.stop, split.test.stop + embargo) for split in splits)
    folds = tuple(
        Fold(number=number, split=split, embargoes=embargoes[: number - 1])
        for number, split in enumerate(splits, start=1)
    )
    return FoldPlan(
        span=slice(start, stop), folds=folds, final=Fold(split=final.counted_from(start), embargoes=embargoes)
    )


def split_sessions(sessions: SessionArray, config: TrainingConfig) -> Split:
    """Return the three periods; the end of train and of valid is cut back by the configuration's gap.

    With configured dates, a period that already keeps the distance is left as it is.

    Raises:
        TrainingError: A period has no session left.
    """
    ranges = _ranges_by_date(sessions, config.periods) if config.periods else _ranges_by_share(len(sessions), config)
    return keep_apart(ranges, sessions, config.gap)


def keep_apart(ranges: Ranges, sessions: SessionArray, gap: int, *, place: str = "") -> Split:
    """Return the periods with the end of train and of valid cut back where they are nearer than `gap` to the next.

    Raises:
        TrainingError: A period has no session left; `place` names the fold.
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


def period_of(sessions: SessionArray, period: slice) -> Period:
    """Return the dates of a range of sessions."""
    first, last = (sessions[index].astype(object) for index in (period.start, period.stop - 1))
    return Period(first=first, last=last)


def _ranges_by_share(count: int, config: TrainingConfig) -> Ranges:
    train = int(count * config.shares.train)
    valid = int(count * (config.shares.train + config.shares.valid))
    return slice(0, train), slice(train, valid), slice(valid, count)


def _ranges_by_date(sessions: SessionArray, periods: Periods) -> Ranges:
    def between(first: date, last: date) -> slice:
        start = np.searchsorted(sessions, np.datetime64(first, "D"))
        return slice(int(start), int(np.searchsorted(sessions, np.datetime64(last, "D"), side="right")))

    train, valid, test = periods.train, periods.valid, periods.test
    return between(train.first, train.last), between(valid.first, valid.last), between(test.first, test.last)


def _ranges(sessions: SessionArray, rule: WalkForward, purge: int) -> Iterator[Ranges]:
    if rule.folds is not None:
        yield from (_ranges_by_date(sessions, periods) for periods in rule.folds)
        return
    lengths = rule.lengths
    first_test = lengths.train_sessions + purge + lengths.valid_sessions + purge
    room = len(sessions) - first_test - lengths.test_sessions
    if room < 0:
        raise TrainingError(
            f"no fold fits into the {len(sessions)} sessions of the snapshot: one needs "
            f"{first_test + lengths.test_sessions}, purge of {purge} included"
        )
    count = room // lengths.step + 1
    if count > MAX_FOLDS:
        raise TrainingError(f"{count} folds fit into the snapshot, at most {MAX_FOLDS} are trained: take a longer step")
    yield from (_generated(lengths, purge, step * lengths.step) for step in range(count))


def _generated(lengths: Lengths, purge: int, moved: int) -> Ranges:
    train = slice(0 if lengths.window == "expanding" else moved, moved + lengths.train_sessions)
    valid = slice(train.stop + purge, train.stop + purge + lengths.valid_sessions)
    test = slice(valid.stop + purge, valid.stop + purge + lengths.test_sessions)
    return train, valid, test
