"""What the verbs that compare versions have in common: their options, gathering, tables and JSON.

Owns: how evidence is asked for and shown.
Must not know: what evidence is asked to show.
Invariant: whatever was left out of the numbers is printed below them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import plain, redis_url_of, refuse
from worker.cli._tables import print_line, print_table, right
from worker.embedded import StackNotRunning

if TYPE_CHECKING:
    from strategies.analysis.comparison import Comparison, SessionComparison
    from worker.operations.comparison.gathering import ComparisonSources, Evidence
    from worker.registry.models import ModelVersion
    from worker.settings import Settings

#: Sessions that a table shows, the latest ones; JSON has all.
SHOWN = 30

Since = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Take vectors published from this UTC day on.")
]
Last = Annotated[int, typer.Option(min=1, max=1_000_000, help="Most pairs, the latest ones.")]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Compute both versions here and now, instead of reading the streams.")
]
Snapshot = Annotated[
    str | None, typer.Option(help="Id or run date of the snapshot that returns come from; the latest by default.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSource:
    """Where pairs come from."""

    #: Sessions to compute here and now; None: pairs come from the streams.
    recompute_sessions: int | None
    since: date | None
    last: int
    snapshot: str | None


def gathered(settings: "Settings", rows: "tuple[ModelVersion, ModelVersion]", source: EvidenceSource) -> "Evidence":
    """Return the evidence on two versions.

    Raises:
        WorkerError: It cannot be gathered.
    """
    from contracts import StreamNames
    from worker.operations.comparison.gathering import ComparisonSources, recomputed

    sources = ComparisonSources(
        names=StreamNames(settings.namespace, settings.partition),
        data_dir=settings.data_dir,
        artifacts_dir=settings.artifacts_dir,
        stale_after_sessions=settings.stale_after_sessions,
        threads=settings.threads,
        snapshot=source.snapshot,
    )
    if source.recompute_sessions is None:
        return _from_streams(settings, rows, sources, source)
    return recomputed(rows, sources, sessions=source.recompute_sessions)


def _from_streams(
    settings: "Settings",
    rows: "tuple[ModelVersion, ModelVersion]",
    sources: "ComparisonSources",
    source: EvidenceSource,
) -> "Evidence":
    from worker.operations.comparison.gathering import from_streams
    from worker.transport.client import connect

    try:
        url = redis_url_of(settings)
    except StackNotRunning as error:
        refuse(f"{error}; --recompute needs no streams")
    client = connect(url, "signal-worker:models")
    try:
        return from_streams(rows, sources, client, since=source.since, last=source.last)
    finally:
        client.close()


def as_json(evidence: "Evidence") -> dict[str, Any]:
    """Return evidence as JSON has it; what was not measured is null."""
    comparison = evidence.comparison
    fields = plain(comparison)
    return {
        "strategy": evidence.strategy,
        "left": evidence.left.version,
        "right": evidence.right.version,
        "source": evidence.source,
        "snapshot_id": evidence.snapshot_id,
        "pairs": comparison.pairs,
        "pairs_of_other_symbols": comparison.symbol_mismatches,
        "left_out": plain(evidence.counts),
        "notes": list(evidence.notes),
        # `likeness` is what readers of this JSON know the similarity as.
        "overall": {"likeness": fields["similarity"], "left": fields["left"], "right": fields["right"]},
        "sessions": [
            {"likeness" if name == "similarity" else name: value for name, value in session.items()}
            for session in fields["sessions"]
        ],
    }


def show(evidence: "Evidence") -> None:
    """Print the tables, and below them what was left out."""
    comparison = evidence.comparison
    print_line(f"{evidence.strategy}: {evidence.basis}")
    if comparison.sessions:
        _print_similarities(comparison.sessions[-SHOWN:])
        typer.echo()
        _print_performances(evidence)
        typer.echo()
        print_table(
            ("overall", *right("both", evidence.left.version, evidence.right.version)), list(_totals(comparison))
        )
    if (hidden := len(comparison.sessions) - SHOWN) > 0:
        print_line(f"{hidden} earlier sessions not shown; --json has them")
    differing = comparison.symbol_mismatches
    below = [f"{differing} pairs compared on the symbols that both priced, as they differ"] if differing else []
    for line in (*below, *evidence.counts.sentences(), *evidence.notes):
        print_line(line)


def _print_similarities(sessions: "Sequence[SessionComparison]") -> None:
    names = ("pairs", "symbols", "rank corr.", "active share", "longs", "shorts", "agreement")
    rows = []
    for one in sessions:
        both = one.similarity
        numbers = (both.rank_correlation, both.active_share, both.long_overlap, both.short_overlap, both.agreement)
        rows.append((one.session, one.pairs, one.symbols, *map(_number, numbers)))
    print_table(["session", *right(*names)], rows)


def _print_performances(evidence: "Evidence") -> None:
    rows = [
        (one.session, version, _number(side.turnover), _number(side.ic), _number(side.rank_ic), side.outcome.value)
        for one in evidence.comparison.sessions[-SHOWN:]
        for version, side in ((evidence.left.version, one.left), (evidence.right.version, one.right))
    ]
    print_table(("session", "version", *right("turnover", "IC", "rank IC"), "returns"), rows)


def _totals(comparison: "Comparison") -> Iterator[tuple[object, ...]]:
    from strategies.analysis.outcomes import LabelStatus

    both, left, right_one = comparison.similarity, comparison.left, comparison.right
    yield "rank correlation of predictions", _number(both.rank_correlation), "", ""
    yield "active share (0 to 2)", _number(both.active_share), "", ""
    yield "overlap of longs", _number(both.long_overlap), "", ""
    yield "overlap of shorts", _number(both.short_overlap), "", ""
    yield "agreement", _number(both.agreement), "", ""
    yield "turnover", "", _number(left.turnover), _number(right_one.turnover)
    yield "IC", "", _number(left.ic), _number(right_one.ic)
    yield "rank IC", "", _number(left.rank_ic), _number(right_one.rank_ic)
    yield "compute ms p50", "", f"{left.compute_ms_p50:.3g}", f"{right_one.compute_ms_p50:.3g}"
    yield "compute ms p99", "", f"{left.compute_ms_p99:.3g}", f"{right_one.compute_ms_p99:.3g}"
    for outcome in LabelStatus:
        yield f"sessions: returns {outcome.value}", "", left.sessions[outcome], right_one.sessions[outcome]


def _number(value: float) -> str | None:
    return f"{value:.4f}" if math.isfinite(value) else None
