"""Drift: the distance of a snapshot's recent rows from the rows that a model was trained on.

Owns: the two distances (PSI, Kolmogorov-Smirnov), their levels, which rows are compared.
Must not know: files, threads, metrics, requests; drift follows from a bundle and a panel alone.
Invariant: rows are those that serving would price, computed by serving's own code; every distance is finite, whatever
the columns contain: NaN, infinities, ties, one value alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from strategies.errors import BundleError, DataError
from strategies.market.bars import Float32Array, FloatArray, Panel
from strategies.market.eligibility import eligibility
from strategies.models.bundle import Bundle
from strategies.models.manifest import ChancePsiRecord
from strategies.models.reference import LEVELS, Distribution

#: PSI from which a column counts as drifted, by convention: Siddiqi (2006), Credit Risk Scorecards, as discussed by
#: Yurdakul (2018), Statistical Properties of the Population Stability Index.
MODERATE_PSI, MAJOR_PSI = 0.1, 0.25
#: Shares below this count as this: half of what a reference of 101 quantiles can resolve. It keeps PSI finite.
FLOOR = 0.005
#: Points that represent a reference distribution's rows, far more than it has quantiles.
_POINTS = (np.arange(1000) + 0.5) / 1000
_DECILES = slice(10, 100, 10)
#: Lengths of stretches of the training period, in sessions, whose PSI says what chance gives; most of them of a length.
CHANCE_SESSIONS, CHANCE_STRETCHES = (1, 5, 10, 20, 60, 120, 250), 200
#: Share of the stretches that chance explains.
CHANCE_SHARE = 0.99


class DriftLevel(StrEnum):
    """The conventional levels of a PSI."""

    STABLE = "stable"
    MODERATE = "moderate"
    MAJOR = "major"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """How one feature, or the prediction, moved."""

    name: str
    #: Population stability index, 0 or above: over the reference's deciles, values outside its range, and NaN.
    psi: float
    #: Largest distance between the distribution functions of the finite values, 0 to 1, known to about 0.01; None
    #: where one side has no value.
    ks: float | None
    #: Share of rows without a finite value, now and in the reference.
    missing: float
    reference_missing: float

    @property
    def level(self) -> DriftLevel:
        """Return the level of the PSI."""
        return level_of(self.psi)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """What recent sessions are to one bundle."""

    strategy: str
    version: str
    bundle_sha256: str
    snapshot_id: str
    first: date
    last: date
    sessions: int
    #: Symbols of the universe that the snapshot has bars of.
    symbols: int
    #: Rows compared: a symbol on a session. They are no independent draws, so few of them drift by chance alone.
    rows: int
    prediction: ColumnDrift
    #: PSI of the prediction that 99 of 100 stretches of the training period of about this length stay below, compared
    #: with the whole of it; None where the bundle does not state it.
    chance_psi: float | None
    #: Highest PSI first.
    features: tuple[ColumnDrift, ...]

    def above(self, psi: float) -> int:
        """Return how many features have at least this PSI."""
        return sum(each.psi >= psi for each in self.features)

    def alarms(self, psi: float) -> bool:
        """Return whether the prediction has at least this PSI, and more than chance gives so few sessions."""
        return self.prediction.psi >= max(psi, self.chance_psi or 0.0)


class NothingToCompare(DataError):
    """Bars in which no recent row can be priced."""


def level_of(psi: float) -> DriftLevel:
    """Return the conventional level of a PSI."""
    if psi >= MAJOR_PSI:
        return DriftLevel.MAJOR
    return DriftLevel.MODERATE if psi >= MODERATE_PSI else DriftLevel.STABLE


def measure_drift(
    bundle: Bundle, panel: Panel, sessions: int, *, go_on: Callable[[], bool] = lambda: True
) -> DriftReport | None:
    """Return the distance of the panel's last sessions from the bundle's training rows; None where it was stopped.

    Args:
        bundle: With its reference; no other thread may use its booster meanwhile.
        panel: Bars of the snapshot.
        sessions: The last so many sessions are compared, fewer where the panel has fewer.
        go_on: Asked between two pieces of some milliseconds each.

    Raises:
        BundleError: A bare model, which has no reference.
        NothingToCompare: No symbol of the universe can be priced on any of these sessions.
        ExpressionError: The bars lack a field that the features need.
    """
    if not bundle.reference:
        raise BundleError(f"{bundle.strategy} {bundle.version} is a bare model, it has no reference to drift from")
    symbols = [symbol for symbol in bundle.universe or panel.symbols if symbol in panel.index]
    days = [day.astype(object) for day in panel.sessions[-sessions:]]
    pieces = []
    for day in days:
        if not go_on():
            return None
        pieces.append(_rows(bundle, panel, symbols, day))
    features, predictions = np.concatenate([piece[0] for piece in pieces]), np.concatenate([p[1] for p in pieces])
    if not len(predictions):
        raise NothingToCompare(
            f"none of {len(symbols)} symbols can be priced from {days[0]} to {days[-1]}: too few or missing bars"
        )
    columns = []
    for at, reference in enumerate(bundle.reference):
        if not go_on():
            return None
        columns.append(column_drift(reference, features[:, at] if at < features.shape[1] else predictions))
    return DriftReport(
        strategy=bundle.strategy,
        version=bundle.version,
        bundle_sha256=bundle.bundle_sha256,
        snapshot_id=panel.snapshot_id,
        first=days[0],
        last=days[-1],
        sessions=len(days),
        symbols=len(symbols),
        rows=len(predictions),
        prediction=columns[-1],
        chance_psi=_by_chance(bundle, len(days)),
        features=tuple(sorted(columns[:-1], key=lambda each: -each.psi)),
    )


def chance_psi(reference: Distribution, predictions: FloatArray) -> tuple[ChancePsiRecord, ...]:
    """Return how far stretches of the training period are from the whole of it.

    The rows of 20 sessions are no 20 draws for each symbol: symbols move together, and what 60 sessions made hardly
    changes from one session to the next. So PSI is not judged by the number of rows, but by what the period that the
    model was trained on shows in stretches of the same length.

    Args:
        reference: Of the predictions for all training rows.
        predictions: Of the training period, `[sessions, symbols]`; NaN = no training row.

    Returns:
        A record for each length of `CHANCE_SESSIONS` of which the period holds at least four.
    """
    rows = predictions[np.isfinite(predictions).any(axis=1)]
    found = []
    for sessions in CHANCE_SESSIONS:
        if len(rows) < 4 * sessions:
            break
        last = len(rows) - sessions
        starts = np.unique(np.linspace(0, last, min(CHANCE_STRETCHES, last + 1)).astype(int))
        stretches = [rows[start : start + sessions] for start in starts.tolist()]
        values = [prediction_psi(reference, each[np.isfinite(each)]) for each in stretches]
        found.append(
            ChancePsiRecord(
                sessions=sessions, stretches=len(values), psi=float(np.quantile(values, CHANCE_SHARE, method="higher"))
            )
        )
    return tuple(found)


def prediction_psi(reference: Distribution, finite: FloatArray) -> float:
    """Return the PSI of finite values, at least one, against a reference."""
    quantiles = np.array(reference.quantiles, dtype=np.float64)
    return stability_index(*_shares(quantiles, reference.nan_share, finite, 0.0))


def _by_chance(bundle: Bundle, sessions: int) -> float | None:
    """Return what the bundle states for the longest stretch that is no longer, brought to this length.

    The PSI of a sample against its own distribution falls as one over its size.
    """
    stated = (bundle.manifest.chance_psi if bundle.manifest else None) or ()
    found = [each.psi * each.sessions / sessions for each in stated if each.sessions <= sessions]
    return found[-1] if found else None


def column_drift(reference: Distribution, values: NDArray[np.floating]) -> ColumnDrift:
    """Return the distance of at least one value from a reference distribution."""
    finite = values[np.isfinite(values)].astype(np.float64)
    missing = 1.0 - len(finite) / len(values)
    quantiles = np.array(reference.quantiles, dtype=np.float64)
    ks = None
    if len(finite) and len(quantiles):
        ks = largest_distance(np.interp(_POINTS, LEVELS, quantiles), finite)
    return ColumnDrift(
        name=reference.name,
        psi=stability_index(*_shares(quantiles, reference.nan_share, finite, missing)),
        ks=ks,
        missing=missing,
        reference_missing=reference.nan_share,
    )


def largest_distance(left: FloatArray, right: FloatArray) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples, `[n]` and `[m]`, neither empty, all finite: 0 to 1.

    That of `scipy.stats.ks_2samp`, whose import takes a worker's interpreter for a second: each request beside it would
    wait for ten times as long as it takes to answer.
    """
    at = np.concatenate([left, right])
    reached = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (left, right)]
    return float(np.abs(reached[0] - reached[1]).max())


def stability_index(expected: FloatArray, actual: FloatArray) -> float:
    """Return the population stability index of two lists of shares, `[bins]`, each at least `FLOOR`.

    It is the sum of the two relative entropies: of (actual - expected) ln(actual / expected).
    """
    from scipy.special import rel_entr  # noqa: PLC0415 - not needed for an answer

    floored, seen = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return max(0.0, float((rel_entr(seen, floored) + rel_entr(floored, seen)).sum()))


def _rows(bundle: Bundle, panel: Panel, symbols: list[str], day: date) -> tuple[Float32Array, FloatArray]:
    """Return features and predictions of the symbols that may be priced on a session."""
    lookback = bundle.feature_set.lookback
    window = panel.window(symbols, day, lookback)
    priced = eligibility(window, lookback, stale_after_sessions=0).eligible
    features = bundle.feature_set.evaluate(window.take(np.flatnonzero(priced)))
    return features, bundle.predict(features)


def _shares(
    quantiles: FloatArray, reference_missing: float, finite: FloatArray, missing: float
) -> tuple[FloatArray, FloatArray]:
    """Return the expected and the actual share of each bin, the last one being what has no value."""
    edges, reached = _edges(quantiles)
    expected = np.diff(reached, prepend=0.0, append=1.0) * (1.0 - reference_missing)
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    actual = counts / max(len(finite), 1) * (1.0 - missing)
    return np.append(expected, reference_missing), np.append(actual, missing)


def _edges(quantiles: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the upper edges of all bins but the last, and the share of the reference at or below each.

    Bins are the reference's deciles, what is below its lowest value and above its highest. A value that holds a
    whole percent of the rows or more (ties, a constant) has a bin of its own where an edge falls on it: the one below
    it ends just before.
    """
    if not len(quantiles):
        return np.empty(0), np.empty(0)
    wanted = np.unique(quantiles[_DECILES])
    tied = wanted[np.searchsorted(quantiles, wanted, "right") - np.searchsorted(quantiles, wanted, "left") > 1]
    edges = np.unique(np.concatenate([wanted, np.nextafter(tied, -np.inf), _outside(quantiles)]))
    reached = (np.searchsorted(quantiles, edges, side="right") - 1) / (len(LEVELS) - 1)
    return edges, np.clip(reached, 0.0, 1.0)


def _outside(quantiles: FloatArray) -> FloatArray:
    return np.array([np.nextafter(quantiles[0], -np.inf), quantiles[-1]])
