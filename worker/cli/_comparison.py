"""What the verbs that compare versions have in common: their options, gathering, tables and JSON.

Owns: how evidence is asked for and shown.
Must not know: what evidence is asked to show.
Invariant: whatever was left out of the numbers is printed below them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import refuse
from worker.cli._registry import refusals

if TYPE_CHECKING:
    from rich.table import Table

    from strategies.analysis.comparison import Comparison, SessionComparison
    from worker.operations.comparison.gathering import Evidence, Sources
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
Namespace = Annotated[str | None, typer.Option(help="Prefix of every key on the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSource:
    """Where pairs come from."""

    #: Sessions to compute here and now; None: pairs come from the streams.
    recompute_sessions: int | None
    since: date | None
    last: int
    snapshot: str | None


def gathered(settings: "Settings", rows: "tuple[ModelVersion, ModelVersion]", source: EvidenceSource) -> "Evidence":
    """Return the evidence on two versions, or end with a sentence."""
    from contracts import StreamNames
    from worker.operations.comparison.gathering import Sources, recomputed

    sources = Sources(
        names=StreamNames(settings.namespace),
        data_dir=settings.data_dir,
        artifacts_dir=settings.artifacts_dir,
        stale_after_sessions=settings.stale_after_sessions,
        threads=settings.threads,
        snapshot=source.snapshot,
    )
    if source.recompute_sessions is None:
        return _from_streams(settings, rows, sources, source)
    with refusals():
        return recomputed(rows, sources, sessions=source.recompute_sessions)


def _from_streams(
    settings: "Settings", rows: "tuple[ModelVersion, ModelVersion]", sources: "Sources", source: EvidenceSource
) -> "Evidence":
    from worker.embedded import StackNotRunning, resolve_redis_url
    from worker.operations.comparison.gathering import from_streams
    from worker.transport.client import connect

    try:
        url = resolve_redis_url(settings.redis_url, settings.local_dir)
    except StackNotRunning as error:
        refuse(f"{error}; --recompute needs no streams")
    client = connect(url, "signal-worker:models")
    try:
        with refusals():
            return from_streams(rows, sources, client, since=source.since, last=source.last)
    finally:
        client.close()


def as_json(evidence: "Evidence") -> dict[str, Any]:
    """Return evidence as JSON has it; what was not measured is null."""
    comparison = evidence.comparison
    plain = _plain(asdict(comparison))
    return {
        "strategy": evidence.strategy,
        "left": evidence.left.version,
        "right": evidence.right.version,
        "source": evidence.source,
        "snapshot_id": evidence.snapshot_id,
        "pairs": comparison.pairs,
        "pairs_of_other_symbols": comparison.symbol_mismatches,
        "left_out": asdict(evidence.counts),
        "notes": list(evidence.notes),
        # `likeness` is what readers of this JSON know the similarity as.
        "overall": {"likeness": plain["similarity"], "left": plain["left"], "right": plain["right"]},
        "sessions": [
            {"likeness" if name == "similarity" else name: value for name, value in session.items()}
            for session in plain["sessions"]
        ],
    }


def show(evidence: "Evidence") -> None:
    """Print both tables, and below them what was left out."""
    from rich.console import Console

    console, comparison = Console(), evidence.comparison
    console.print(f"{evidence.strategy}: {evidence.basis}", highlight=False, soft_wrap=True)
    if comparison.sessions:
        console.print(_sessions_table(evidence), _totals_table(evidence), sep="\n")
    if (hidden := len(comparison.sessions) - SHOWN) > 0:
        console.print(f"{hidden} earlier sessions not shown; --json has them", highlight=False)
    differing = comparison.symbol_mismatches
    below = [f"{differing} pairs compared on the symbols that both priced, as they differ"] if differing else []
    for line in (*below, *evidence.counts.sentences(), *evidence.notes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _sessions_table(evidence: "Evidence") -> "Table":
    from rich.table import Table

    left, right = evidence.left.version, evidence.right.version
    table = Table("session", "pairs", "symbols", "rank corr.", "active share", "longs", "shorts", "agreement")
    for name in (f"turnover {left}", f"turnover {right}", f"IC, rank IC {left}", f"IC, rank IC {right}"):
        table.add_column(name)
    for one in evidence.comparison.sessions[-SHOWN:]:
        table.add_row(*_session_cells(one))
    return table


def _session_cells(one: "SessionComparison") -> list[str]:
    from strategies.analysis.outcomes import LabelStatus

    similarity = one.similarity
    cells = [str(one.session), str(one.pairs), str(one.symbols), _number(similarity.rank_correlation)]
    cells += [_number(similarity.active_share), _number(similarity.long_overlap), _number(similarity.short_overlap)]
    cells += [_number(similarity.agreement), _number(one.left.turnover), _number(one.right.turnover)]
    for performance in (one.left, one.right):
        known = performance.outcome is LabelStatus.KNOWN
        cells.append(
            f"{_number(performance.ic)}, {_number(performance.rank_ic)}" if known else performance.outcome.value
        )
    return cells


def _totals_table(evidence: "Evidence") -> "Table":
    from rich.table import Table

    table = Table("overall", "both", evidence.left.version, evidence.right.version)
    for row in _totals(evidence.comparison):
        table.add_row(*row)
    return table


def _totals(comparison: "Comparison") -> list[tuple[str, str, str, str]]:
    from strategies.analysis.outcomes import LabelStatus

    both, left, right = comparison.similarity, comparison.left, comparison.right
    rows = [
        ("rank correlation of predictions", _number(both.rank_correlation), "", ""),
        ("active share (0 to 2)", _number(both.active_share), "", ""),
        ("overlap of longs", _number(both.long_overlap), "", ""),
        ("overlap of shorts", _number(both.short_overlap), "", ""),
        ("agreement", _number(both.agreement), "", ""),
        ("turnover", "", _number(left.turnover), _number(right.turnover)),
        ("IC", "", _number(left.ic), _number(right.ic)),
        ("rank IC", "", _number(left.rank_ic), _number(right.rank_ic)),
        ("compute ms p50", "", f"{left.compute_ms_p50:.3g}", f"{right.compute_ms_p50:.3g}"),
        ("compute ms p99", "", f"{left.compute_ms_p99:.3g}", f"{right.compute_ms_p99:.3g}"),
    ]
    counted = [(outcome.value, str(left.sessions[outcome]), str(right.sessions[outcome])) for outcome in LabelStatus]
    return [*rows, *((f"sessions: returns {name}", "", one, other) for name, one, other in counted)]


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the value as JSON spells it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum | date):
        return str(value)
    return value
