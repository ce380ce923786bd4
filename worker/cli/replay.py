"""`signal-worker replay`: compute published vectors again and compare them bit for bit.

Exit codes: 1 different, or an archive that cannot be read, 3 not reproducible or not published.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import ExitCode, Json, Namespace, print_json, redis_url_of, refuse, settings_of
from worker.cli._tables import Column, print_line, print_table, right
from worker.embedded import StackNotRunning

if TYPE_CHECKING:
    from worker.operations.replay.audit import ReplayFinding
    from worker.operations.replay.published import Publications, Published
    from worker.settings import Settings

#: Findings that an audit shows one by one.
SHOWN = 20


def replay(
    name: Annotated[str | None, typer.Argument(help="Result entry id, or request id.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Audit from this UTC day on.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="To this day; today by default.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Most vectors drawn for an audit.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed draws the same vectors.")] = 0,
    namespace: Namespace = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Read the archive alone, no server.")] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Vectors of versions in testing, which nobody trades.")
    ] = False,
    probes: Annotated[bool, typer.Option("--probes", help="Vectors of probes alone, which nobody trades.")] = False,
    as_json: Json = False,
) -> None:
    """Compute a published vector again from its lineage; with --since, a sample of a period.

    One vector is looked for among the results and the probes; a sample is of results unless --probes is given.

    JSON: entry_id, found_in, request_id, purpose, strategy, model_version, served_as, as_of, outcome, differences,
    notes; with --shadow a list of these; with --since: published, replayed, findings.

    Example: signal-worker replay --since 2026-01-01 --sample 100
    """
    if (name is None) == (since is None):
        refuse("replay takes one entry id or request id, or --since for an audit")
    if shadow and probes:
        refuse("--shadow and --probes name two streams; replay reads one at a time")
    settings = settings_of(namespace=namespace)
    where = {"offline": offline, "shadow": shadow, "probes": probes}
    if name is not None:
        _replay_one(settings, name, where, as_json=as_json)
    elif since is not None:
        period = since.date(), until.date() if until else datetime.now(UTC).date()
        _audit(settings, period, (sample, seed), where, as_json=as_json)


def _replay_one(settings: "Settings", name: str, where: dict[str, bool], *, as_json: bool) -> None:
    from worker.operations.archive import ArchiveUnusable
    from worker.operations.replay.audit import replay as replay_one
    from worker.operations.replay.published import NotPublished

    with ExitStack() as stack:
        try:
            published = _find(name, _publications(settings, stack, **where))
        except NotPublished as error:
            refuse(error, code=ExitCode.NOT_FOUND)
        except ArchiveUnusable as error:
            refuse(error, code=ExitCode.FAILED)
    lineage = _lineage(settings)
    findings = [replay_one(one, lineage, _code_version()) for one in published]
    if as_json:
        shown = [_as_json(finding) for finding in findings]
        print_json(shown if where["shadow"] else shown[0])
    else:
        for finding in findings:
            _show(finding)
    _end(findings)


def _audit(
    settings: "Settings", period: tuple[date, date], draw: tuple[int, int], where: dict[str, bool], *, as_json: bool
) -> None:
    from worker.operations.archive import ArchiveUnusable
    from worker.operations.replay.audit import audit
    from worker.operations.replay.published import NotPublished

    with ExitStack() as stack:
        try:
            publications = _publications(settings, stack, **where)[0]
            drawn, total = publications.sample(*period, *draw)
            vectors = list(publications.fetch(drawn))
        except (ArchiveUnusable, NotPublished) as error:
            refuse(error, code=ExitCode.FAILED)
    findings = list(audit(vectors, _lineage(settings), _code_version()))
    if as_json:
        summary = {"published": total, "replayed": len(findings), "findings": [_as_json(one) for one in findings]}
        print_json(summary)
    else:
        _show_audit(findings, total)
    if not findings:
        refuse(f"no vector was published from {period[0]} to {period[1]}", code=ExitCode.NOT_FOUND)
    _end(findings)


def _find(name: str, places: "Sequence[Publications]") -> "list[Published]":
    """Return the vectors of that name in the first place that has any.

    Raises:
        NotPublished: No place has one.
    """
    from worker.operations.replay.published import NotPublished

    refusals = []
    for place in places:
        try:
            return place.find_all(name)
        except NotPublished as error:
            refusals.append(str(error))
    raise NotPublished("; ".join(dict.fromkeys(refusals)))


def _publications(
    settings: "Settings", stack: ExitStack, *, offline: bool, shadow: bool, probes: bool
) -> "list[Publications]":
    """Return where vectors are looked for, the first place first."""
    from contracts import SignalVector, StreamNames
    from worker.operations.archive import Archive
    from worker.operations.replay.published import Publications
    from worker.transport.client import connect

    names = StreamNames(settings.namespace, settings.partition)
    streams = [names.shadow] if shadow else [names.probes] if probes else [names.results, names.probes]
    archives = [Archive(settings.data_dir, stream, SignalVector) for stream in streams]
    if offline:
        return [Publications(None, names, archive) for archive in archives]
    try:
        url = redis_url_of(settings)
    except StackNotRunning as error:
        refuse(f"{error}; --offline reads the archive alone")
    client = connect(url, "signal-worker:replay")
    stack.callback(client.close)
    return [Publications(client, names, archive) for archive in archives]


def _lineage(settings: "Settings") -> Any:  # noqa: ANN401 - imported late
    from worker.operations.replay.lineage import LineageResolver

    return LineageResolver(settings.artifacts_dir, settings.data_dir)


def _code_version() -> str:
    from worker.runtime import code_version

    return code_version()


def _end(findings: "Sequence[ReplayFinding]") -> None:
    from worker.operations.replay.audit import ReplayOutcome

    outcomes = {finding.outcome for finding in findings}
    if ReplayOutcome.DIFFERENT in outcomes:
        raise typer.Exit(ExitCode.FAILED)
    if ReplayOutcome.NOT_REPRODUCIBLE in outcomes:
        raise typer.Exit(ExitCode.NOT_FOUND)


def _as_json(finding: "ReplayFinding") -> dict[str, Any]:
    vector = finding.published.vector
    return {
        "entry_id": finding.published.entry_id,
        "found_in": finding.published.found_in,
        "request_id": vector.request_id,
        "purpose": vector.purpose,
        "strategy": vector.strategy,
        "model_version": vector.model_version,
        "served_as": vector.served_as,
        "as_of": vector.as_of,
        "outcome": finding.outcome,
        "differences": finding.differences,
        "notes": finding.notes,
    }


def _show(finding: "ReplayFinding") -> None:
    from contracts import Purpose, ServedAs

    vector = finding.published.vector
    part = "" if vector.served_as is ServedAs.ACTIVE else f" ({vector.served_as.value})"
    request = "probe" if vector.purpose is Purpose.PROBE else "request"
    print_line(
        f"{finding.outcome.value}: entry {finding.published.entry_id} ({finding.published.found_in}), {request} "
        f"{vector.request_id}, {vector.strategy} {vector.model_version}{part}, as of {vector.as_of}, "
        f"{len(vector.weights)} signals"
    )
    if finding.differences:
        columns = ("field", "symbol", Column("published", text=True), Column("recomputed", text=True))
        print_table(columns, [(one.field, one.symbol, one.published, one.recomputed) for one in finding.differences])
    for note in finding.notes:
        print_line(f"note: {note}")


def _show_audit(findings: "Sequence[ReplayFinding]", total: int) -> None:
    from worker.operations.replay.audit import ReplayOutcome, tally

    counts = tally(findings)
    rows = [
        (strategy, version, snapshot[:12], *(counts[strategy, version, snapshot, outcome] for outcome in ReplayOutcome))
        for strategy, version, snapshot in sorted({key[:3] for key in counts})
    ]
    print_table(("strategy", "version", "snapshot", *right(*(outcome.value for outcome in ReplayOutcome))), rows)
    print_line(f"{len(findings)} of {total} published vectors replayed")
    for finding in [one for one in findings if one.outcome is not ReplayOutcome.IDENTICAL][:SHOWN]:
        _show(finding)
