"""Realised labels of a session, where the bars that they read are available.

Owns: whether a session's returns are known, not known yet, or were learnt from.
Must not know: predictions, files, where panels come from.
Invariant: a return is computed from bars of the panel alone; what is beyond its last session is not known yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

import numpy as np

from strategies.expressions.feature_sets import Label, label
from strategies.market.bars import FloatArray, Panel
from strategies.models.bundle import Bundle


class LabelStatus(StrEnum):
    """Whether a session's labels are known."""

    KNOWN = "known"
    #: Bars that the label reads are after the panel's last session.
    NOT_KNOWN_YET = "not known yet"
    #: The model was trained or stopped by labels that read these bars, so they are no evidence.
    SEEN_IN_TRAINING = "seen in training"
    #: No session of the panel, too few symbols with a return, or no variation.
    NOT_MEASURABLE = "not measurable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """The returns of one session."""

    outcome: LabelStatus
    #: In the order asked for, `[symbols]`; NaN = not known.
    labels: FloatArray


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The realised labels of a panel, by one bundle's definition."""

    panel: Panel
    bundle: Bundle
    _label: Label = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_label", label(self.bundle.label.expression))

    def of(self, session: date, symbols: Sequence[str]) -> Realised:
        """Return the label of each symbol, as far as it is known and was not learnt from."""
        outcome = self._outcome(session)
        labels = np.full(len(symbols), np.nan)
        if outcome is LabelStatus.KNOWN:
            rows = [row for row, symbol in enumerate(symbols) if symbol in self.panel.index]
            if rows:
                priced = [symbols[row] for row in rows]
                labels[rows] = self._label.evaluate_range(self.panel, session, session, priced)[0]
        return Realised(outcome=outcome, labels=labels)

    def _outcome(self, session: date) -> LabelStatus:
        sessions, day = self.panel.sessions, np.datetime64(session, "D")
        if day > sessions[-1]:
            return LabelStatus.NOT_KNOWN_YET
        position = int(np.searchsorted(sessions, day))
        if sessions[position] != day:
            return LabelStatus.NOT_MEASURABLE
        if position < self._first_unseen():
            return LabelStatus.SEEN_IN_TRAINING
        return LabelStatus.KNOWN if position + self._label.lookahead < len(sessions) else LabelStatus.NOT_KNOWN_YET

    def _first_unseen(self) -> int:
        """Return the first position whose label reads no bar that a label of training has read."""
        if self.bundle.manifest is None:
            return 0
        training = self.bundle.manifest.training
        learnt = np.datetime64(max(training.train.last, training.valid.last), "D")
        return int(np.searchsorted(self.panel.sessions, learnt, side="right")) - 1 + self._label.lookahead
