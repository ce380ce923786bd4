"""Evidence on two versions: pairs from where they are asked for, and what became of their sessions.

Owns: the order of the steps from two rows of the registry to a comparison.
Must not know: how it is shown, what it is asked to show.
Invariant: a bundle is loaded as a worker loads it, proof included; what is missing here is reported, never made up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from contracts import SignalVector, StreamNames
from strategies.analysis.comparison import Comparison, compare
from strategies.analysis.outcomes import Outcomes
from strategies.errors import BundleError, DataError
from strategies.market.bars import Panel
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import find_snapshot, latest_snapshot, load_panel
from strategies.models.bundle import Bundle
from worker.errors import WorkerError
from worker.lifecycle.loader import prove
from worker.operations.archive import Archive
from worker.operations.comparison.counts import Counts
from worker.operations.comparison.published import PairQuery, PublishedPairs, vector_sources
from worker.operations.comparison.recomputed import Recomputation
from worker.registry.models import ModelVersion
from worker.serving.pipeline import ServingRules
from worker.transport.client import Client


class NoEvidence(WorkerError):
    """Nothing can be compared: bars or a bundle that it needs are not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSources:
    """Where evidence is."""

    names: StreamNames
    data_dir: Path
    artifacts_dir: Path
    stale_after_sessions: int = 0
    threads: int = 1
    #: Id or run date of the snapshot that realised returns come from; None: the latest.
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One version."""

    version: str
    #: None: it cannot be loaded here.
    bundle: Bundle | None
    #: Why it is not proven here; empty: it is.
    unproven: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Two versions beside each other, and what that is based on."""

    strategy: str
    left: Contender
    right: Contender
    comparison: Comparison
    counts: Counts
    #: In words.
    source: str
    #: That realised returns come from; None: there was none.
    snapshot_id: str | None
    #: What should be known beside the numbers, one sentence each.
    notes: tuple[str, ...]

    @property
    def basis(self) -> str:
        """Return in one clause what the comparison is based on."""
        sessions = self.comparison.sessions
        span = f" ({sessions[0].session} to {sessions[-1].session})" if sessions else ""
        return f"{self.comparison.pairs} pairs on {len(sessions)} sessions{span}, {self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bars:
    panel: Panel
    calendar: SessionCalendar


def from_streams(
    rows: tuple[ModelVersion, ModelVersion],
    sources: ComparisonSources,
    client: Client,
    *,
    since: date | None,
    last: int,
) -> Evidence:
    """Return what published vectors show of two versions.

    Raises:
        StreamUnavailable: The server is unavailable.
        ArchiveUnusable: A partition of the archive cannot be read.
    """
    sides = _sides(rows, sources)
    try:
        bars, missing = _bars(sources), ""
    except DataError as error:
        bars, missing = None, f"realised returns are not known here: {error}"
    names = sources.names
    archives = {stream: Archive(sources.data_dir, stream, SignalVector) for stream in (names.results, names.shadow)}
    wanted = PairQuery(
        strategy=rows[0].strategy,
        versions=(rows[0].version, rows[1].version),
        bundles=(_digest(sides[0]), _digest(sides[1])),
        since=since,
        last=last,
    )
    published = PublishedPairs(vector_sources(client, names, archives), wanted)
    outcomes = [Outcomes(bars.panel, side.bundle) if bars and side.bundle else None for side in sides]
    return Evidence(
        strategy=rows[0].strategy,
        left=sides[0],
        right=sides[1],
        comparison=compare(published.pairs(), outcomes[0], outcomes[1]),
        counts=published.counts,
        source=f"published on {names.results} and {names.shadow}",
        snapshot_id=bars.panel.snapshot_id if bars else None,
        notes=(*filter(None, [missing]), *_notes(sides)),
    )


def recomputed(rows: tuple[ModelVersion, ModelVersion], sources: ComparisonSources, *, sessions: int) -> Evidence:
    """Return what two versions answer here and now for the last sessions of a snapshot.

    Args:
        rows: Left and right version.
        sources: Where evidence is.
        sessions: Sessions whose returns can be known; those after them, whose returns cannot, come on top.

    Raises:
        NoEvidence: There is no snapshot, or a bundle cannot be loaded.
    """
    sides = _sides(rows, sources)
    left, right = _needed(sides[0]), _needed(sides[1])
    try:
        bars = _bars(sources)
    except DataError as error:
        raise NoEvidence(str(error)) from error
    panel, counts = bars.panel, Counts()
    rules = ServingRules(
        calendar=bars.calendar, stale_after_sessions=sources.stale_after_sessions, threads=sources.threads
    )
    asked = Recomputation(
        bundles=(left, right),
        panel=panel,
        rules=rules,
        sessions=sessions + max(left.label.sessions_ahead, right.label.sessions_ahead),
        now=datetime.now(UTC),
    )
    return Evidence(
        strategy=rows[0].strategy,
        left=sides[0],
        right=sides[1],
        comparison=compare(asked.pairs(counts), Outcomes(panel, left), Outcomes(panel, right)),
        counts=counts,
        source=f"recomputed on snapshot {panel.snapshot_id[:12]}",
        snapshot_id=panel.snapshot_id,
        notes=tuple(_notes(sides)),
    )


def _sides(rows: tuple[ModelVersion, ModelVersion], sources: ComparisonSources) -> tuple[Contender, Contender]:
    return _side(rows[0], sources), _side(rows[1], sources)


def _side(row: ModelVersion, sources: ComparisonSources) -> Contender:
    try:
        # A bare model is loaded to be compared; that it is not proven is reported.
        bundle = prove(row.ref, sources.artifacts_dir, allow_unproven=True)
    except BundleError as error:
        return Contender(version=row.version, bundle=None, unproven=str(error))
    unproven = "" if bundle.proven else "a bare model without a golden sample"
    return Contender(version=row.version, bundle=bundle, unproven=unproven)


def _bars(sources: ComparisonSources) -> _Bars:
    name, data_dir = sources.snapshot, sources.data_dir
    snapshot = latest_snapshot(data_dir) if name is None else find_snapshot(data_dir, name)
    calendar = snapshot.open_calendar()
    return _Bars(panel=load_panel(snapshot, calendar), calendar=calendar)


def _digest(side: Contender) -> str | None:
    return side.bundle.bundle_sha256 if side.bundle else None


def _needed(side: Contender) -> Bundle:
    if side.bundle is None:
        raise NoEvidence(f"{side.version} cannot be computed again: {side.unproven}")
    return side.bundle


def _notes(sides: tuple[Contender, Contender]) -> Iterator[str]:
    for side in sides:
        if side.unproven:
            yield f"{side.version} is not proven here: {side.unproven}"
    left, right = sides[0].bundle, sides[1].bundle
    if left and right and left.label.expression != right.label.expression:
        yield f"each is judged by its own label: {left.label.horizon}; {right.label.horizon}"
