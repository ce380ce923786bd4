"""Walk-forward folds: train, validate, test, and go on in time.

Owns: where each fold's periods lie, the purge before a period and the embargo after a test period.
Must not know: features, models, files.
Invariant: no label of a fold's training rows reads a bar of its validation or test period, none of its validation rows
a bar of its test period; test periods follow each other, so that each session is predicted once at most.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from strategies.errors import TrainingError
from strategies.market.bars import IntArray, SessionArray
from strategies.models.configuration import Lengths, TrainingConfig, WalkForward
from strategies.models.manifest import MAX_FOLDS
from strategies.models.periods import Ranges, Split, keep_apart, ranges_by_date, split_sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The periods of one model, and what earlier test periods leave of them."""

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
        """Return how many sessions of both periods are left out."""
        train, valid = self.split.train, self.split.valid
        learnt = len(self.train) + len(self.valid)
        return len(range(train.start, train.stop)) + len(range(valid.start, valid.stop)) - learnt

    @property
    def place(self) -> str:
        """Return where this is, for a sentence."""
        return f" of fold {self.number}" if self.number else ""

    def _outside_embargoes(self, period: slice) -> IntArray:
        indices = np.arange(period.start, period.stop, dtype=np.int64)
        for embargo in self.embargoes:
            indices = indices[(indices < embargo.start) | (indices >= embargo.stop)]
        return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The folds of one training run, and the final model's periods."""

    folds: tuple[Fold, ...]
    final: Fold

    @property
    def span(self) -> slice:
        """Return the range of sessions that any model learns from or is judged on."""
        splits = [fold.split for fold in (*self.folds, self.final)]
        return slice(min(split.train.start for split in splits), max(split.test.stop for split in splits))

    @property
    def tested(self) -> IntArray:
        """Return the indices of the sessions that a fold tests, ascending."""
        periods = [np.arange(fold.split.test.start, fold.split.test.stop, dtype=np.int64) for fold in self.folds]
        return np.concatenate([np.empty(0, dtype=np.int64), *periods])


def plan_folds(sessions: SessionArray, config: TrainingConfig) -> Plan:
    """Return the folds of a configuration, in order of time, and the final model's periods.

    The final model keeps the embargo after every fold's test period: it is trained as one more fold would be.

    Raises:
        TrainingError: A period has no session left, no fold fits into the snapshot, or too many do.
    """
    final = split_sessions(sessions, config)
    if config.walk_forward is None:
        return Plan(folds=(), final=Fold(split=final))
    rule = config.walk_forward
    splits = tuple(
        keep_apart(ranges, sessions, config.gap, place=f" of fold {number}")
        for number, ranges in enumerate(_ranges(sessions, rule, config.gap), start=1)
    )
    embargoes = tuple(slice(split.test.stop, split.test.stop + rule.embargo_sessions) for split in splits)
    folds = tuple(
        Fold(number=number, split=split, embargoes=embargoes[: number - 1])
        for number, split in enumerate(splits, start=1)
    )
    return Plan(folds=folds, final=Fold(split=final, embargoes=embargoes))


def _ranges(sessions: SessionArray, rule: WalkForward, purge: int) -> Iterator[Ranges]:
    if rule.folds is not None:
        yield from (ranges_by_date(sessions, periods) for periods in rule.folds)
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
