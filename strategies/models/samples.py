"""Samples: features and labels of a panel as the rows that a model is trained and evaluated on.

Owns: which rows exist, which are eligible, how labels are transformed within a session.
Must not know: boosters, files, periods' meaning.
Invariant: a row is eligible by the rule of serving: its symbol has a bar on the session and enough history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from strategies.errors import TrainingError
from strategies.expressions.feature_sets import FeatureSet, label
from strategies.files import scratch_array
from strategies.market.bars import Float32Array, FloatArray, IntArray, Panel, SessionArray
from strategies.market.eligibility import MIN_BARS_SHARE, bars_needed
from strategies.models.bundle import ALPHA158_LABEL
from strategies.models.configuration import TrainingConfig
from strategies.models.manifest import LabelProcessor, LabelRecord

#: Called with a stage, how much of it is done, and of how much.
Progress = Callable[[str, int, int], None]
#: Sessions computed between two reports of progress.
CHUNK_SESSIONS = 128
#: Brings the percent ranks of a session to a standard deviation of about 1, as Qlib's CSRankNorm does.
RANK_TO_SD = 3.46


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """Which rows there are, and what their labels are."""

    label: LabelRecord
    #: None = every symbol of the panel.
    universe: tuple[str, ...] | None = None
    #: Leave rows out whose symbol was listed for fewer sessions than the feature set looks back, as serving does.
    require_full_history: bool = True

    @classmethod
    def of(cls, config: TrainingConfig) -> Self:
        """Return the rows and labels of a training."""
        return cls(label=config.label, universe=config.universe, require_full_history=config.require_full_history)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Every (session, symbol) of a range of sessions."""

    #: `[sessions]`
    sessions: SessionArray
    #: The panel's, or the universe's, ascending, `[symbols]`.
    symbols: tuple[str, ...]
    #: `[sessions, symbols, features]`
    features: Float32Array
    #: The spec's label, `[sessions, symbols]`; NaN = not known.
    labels: FloatArray
    #: Of holding for one session from the close of T+1, from which books are evaluated, `[sessions, symbols]`.
    returns: FloatArray
    #: Sessions since the symbol's first bar, that one included, `[sessions, symbols]`; below 1 = no row.
    listed: IntArray
    #: Whether a row may be priced, `[sessions, symbols]`.
    eligible: NDArray[np.bool_]


def compute_samples(
    panel: Panel, features: FeatureSet, spec: SampleSpec, sessions: slice, progress: Progress
) -> Samples:
    """Return the samples of a range of the panel's sessions.

    Raises:
        UnknownSymbols: The universe names a symbol that the panel lacks.
        TrainingError: The panel lacks a field that the features need, or the label looks further ahead than stated.
    """
    missing = sorted(features.fields - set(panel.fields))
    if missing:
        raise TrainingError(f"feature set {features.name} needs {', '.join(missing)}, which the snapshot's bars lack")
    symbols = panel.symbols if spec.universe is None else tuple(sorted(set(spec.universe)))
    rows = panel.rows(symbols)
    listed = np.arange(sessions.start, sessions.stop)[:, None] - panel.first[rows][None, :] + 1
    priced = np.isfinite(panel.fields["close"][rows, sessions]).T
    history = features.lookback if spec.require_full_history else 1
    return Samples(
        sessions=panel.sessions[sessions],
        symbols=symbols,
        features=_features(panel, features, symbols, sessions, progress),
        labels=_labels(panel, spec.label, symbols, sessions),
        returns=_evaluate_label(panel, ALPHA158_LABEL.expression, symbols, sessions),
        listed=listed,
        eligible=priced & (listed >= history) & _dense(panel, rows, sessions, history),
    )


def transform_labels(labels: FloatArray, kind: LabelProcessor) -> FloatArray:
    """Return labels transformed within each session, `[sessions, symbols]`; NaN stays NaN.

    Source: Qlib's CSZScoreNorm (ddof 1) and CSRankNorm (percent rank less 0.5, times 3.46).
    """
    frame = pd.DataFrame(labels)
    if kind == "cs_zscore":
        frame = frame.sub(frame.mean(axis=1), axis=0).div(frame.std(axis=1).replace(0.0, np.nan), axis=0)
    elif kind == "cs_rank":
        frame = (frame.rank(axis=1, pct=True) - 0.5) * RANK_TO_SD
    return frame.to_numpy(dtype=np.float64)


def relevance(labels: FloatArray, levels: int) -> FloatArray:
    """Return labels as quantiles of their session, 0 (lowest) to `levels` - 1, `[sessions, symbols]`; NaN stays NaN."""
    frame = pd.DataFrame(labels)
    ranks, known = frame.rank(axis=1, method="average"), frame.notna().sum(axis=1)
    # The middle of its rank, so that each level holds as many as the next, whatever the number of symbols.
    shares = (ranks - 0.5).div(known.replace(0, 1), axis=0).to_numpy(dtype=np.float64)
    levelled: FloatArray = np.floor(shares * levels)
    return levelled


def _features(
    panel: Panel, features: FeatureSet, symbols: Sequence[str], sessions: slice, progress: Progress
) -> Float32Array:
    values = scratch_array((sessions.stop - sessions.start, len(symbols), len(features.names)))
    progress("features", 0, len(values))
    for start in range(sessions.start, sessions.stop, CHUNK_SESSIONS):
        chunk = slice(start, min(start + CHUNK_SESSIONS, sessions.stop))
        at = slice(chunk.start - sessions.start, chunk.stop - sessions.start)
        values[at] = features.evaluate_range(panel, *_dates(panel, chunk), symbols)
        progress("features", at.stop, len(values))
    return values


def _labels(panel: Panel, stated: LabelRecord, symbols: Sequence[str], sessions: slice) -> FloatArray:
    ahead = label(stated.expression).lookahead
    if ahead != stated.sessions_ahead:
        raise TrainingError(
            f"label {stated.expression} looks {ahead} sessions ahead, the configuration says {stated.sessions_ahead}"
        )
    return _evaluate_label(panel, stated.expression, symbols, sessions)


def _evaluate_label(panel: Panel, expression: str, symbols: Sequence[str], sessions: slice) -> FloatArray:
    return label(expression).evaluate_range(panel, *_dates(panel, sessions), symbols).astype(np.float64)


def _dense(panel: Panel, rows: IntArray, sessions: slice, history: int) -> NDArray[np.bool_]:
    """Return whether enough of the last sessions have a bar, as the rule of serving asks, `[sessions, symbols]`."""
    present = np.isfinite(panel.fields["close"][rows, : sessions.stop])
    bars = np.zeros((len(rows), sessions.stop + 1), np.int32)
    np.cumsum(present, axis=1, out=bars[:, 1:])
    ends = np.arange(sessions.start, sessions.stop) + 1
    inside = bars[:, ends] - bars[:, np.maximum(ends - history, 0)]
    dense: NDArray[np.bool_] = (inside >= bars_needed(history, MIN_BARS_SHARE)).T
    return dense


def _dates(panel: Panel, sessions: slice) -> tuple[date, date]:
    first, last = panel.sessions[sessions.start], panel.sessions[sessions.stop - 1]
    return first.astype(object), last.astype(object)
