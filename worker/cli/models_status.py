"""`signal-worker models status`: what each worker serves, beside what the registry states.

Exit codes: 1 a worker differs from the registry, is silent, or none lives, 8 a server is unavailable.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from worker.cli._common import (
    ExitCode,
    Json,
    Namespace,
    database_url_of,
    plain,
    print_json,
    redis_url_of,
    refuse,
    settings_of,
    warn,
)
from worker.cli._fleet import read_fleet
from worker.cli._streams import span_text
from worker.cli._tables import Column, print_line, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contracts import StandingCandidate
    from worker.cli._fleet import WorkerBeat
    from worker.operations.fleet_status import FleetStatus
    from worker.registry.models import ActiveModel
    from worker.settings import Settings

    Rows = list[tuple[WorkerBeat, FleetStatus | None]]


def status(namespace: Namespace = None, *, as_json: Json = False) -> None:
    """Show what each worker serves, and whether it is what the registry states (exit code 1 if not).

    A worker whose heartbeats are overdue is silent; one whose heartbeat has expired is gone.

    JSON: a list of: worker, state, beat_age_ms, strategy, version, activation, since, proven, cached, snapshot_id,
    active_version, active_activation, equal, reason, candidates.

    Example: signal-worker models status
    """
    settings = settings_of(namespace=namespace)
    beats, active = _beats(settings), _active()
    rows = _rows(beats, active)
    if as_json:
        print_json([_as_json(beat, row) for beat, row in rows])
    else:
        _show(rows)
    _end(settings, rows, registry_answered=active is not None)


def _beats(settings: "Settings") -> "list[WorkerBeat]":
    from contracts import StreamNames
    from worker.transport.client import connect

    client = connect(redis_url_of(settings), "signal-worker:models")
    try:
        return read_fleet(client, StreamNames(settings.namespace, settings.partition))
    finally:
        client.close()


def _active() -> "Mapping[str, ActiveModel] | None":
    from worker.errors import RegistryUnavailable
    from worker.registry.registry import Registry

    try:
        with Registry(database_url_of(settings_of()), name="signal-worker models") as registry:
            return registry.active_models()
    except RegistryUnavailable as error:
        # What serves is worth seeing above all while the registry is unavailable.
        warn(f"the registry cannot be asked: {error}")
        return None


def _rows(beats: "Sequence[WorkerBeat]", active: "Mapping[str, ActiveModel] | None") -> "Rows":
    """Return a row for each worker and strategy; of a worker that cannot be read nothing but its state is known."""
    from worker.operations.fleet_status import fleet_status

    rows: Rows = []
    for beat in beats:
        known = fleet_status([beat.heartbeat], active) if beat.heartbeat else [None]
        # What a silent worker serves was true once; nobody knows whether it is.
        rows += [(beat, row and replace(row, equal=row.equal if beat.beats else None)) for row in known]
    return rows


def _as_json(beat: "WorkerBeat", row: "FleetStatus | None") -> dict[str, Any]:
    from worker.operations.fleet_status import FleetStatus

    known = plain(row) if row else dict.fromkeys(FleetStatus.__slots__) | {"strategy": "", "cached": False}
    return known | {
        "worker": beat.worker,
        "state": beat.state,
        "beat_age_ms": beat.beat_age_ms,
        "candidates": plain(row.candidates) if row else [],
    }


def _end(settings: "Settings", rows: "Rows", *, registry_answered: bool) -> None:
    living = [row for _, row in rows if row is not None]
    if not living:
        refuse(f"no worker lives in {settings.namespace}: `signal-worker run` starts one", code=ExitCode.FAILED)
    if not registry_answered:
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if not all(row.equal for row in living):
        raise typer.Exit(ExitCode.FAILED)


def _show(rows: "Rows") -> None:
    heads = ("worker", "state", "beat", "strategy", "serves", "registry", "equal")
    print_table(heads, [_state_cells(beat, row) for beat, row in rows])
    details = [(beat, row) for beat, row in rows if row is not None]
    if details:
        typer.echo()
        columns = ("worker", "strategy", "since (UTC)", "proven", "snapshot", Column("in testing", text=True))
        print_table(columns, [_detail_cells(row) for _, row in details])
    for beat in {beat.worker: beat for beat, _ in rows}.values():
        for line in _reasons(beat):
            print_line(line)


def _reasons(beat: "WorkerBeat") -> "list[str]":
    if beat.heartbeat is None:
        return []
    own = [f"{beat.worker}: {beat.heartbeat.reason}"] if beat.heartbeat.reason else []
    return own + [
        f"{beat.worker}: {one.strategy} {one.version} does not compute: {one.reason}"
        for one in beat.heartbeat.candidates
        if one.reason
    ]


def _state_cells(beat: "WorkerBeat", row: "FleetStatus | None") -> tuple[str | None, ...]:
    age = f"{span_text(beat.beat_age_ms)} ago"
    if row is None:
        return beat.worker, beat.state, age, None, None, None, None
    served = _numbered(row.version, row.activation)
    return (
        beat.worker,
        beat.state,
        age,
        row.strategy or None,
        f"{served} (cache)" if row.cached else served,
        _numbered(row.active_version, row.active_activation) if row.equal is not None or not beat.beats else "?",
        _yes_no(row.equal, "?"),
    )


def _detail_cells(row: "FleetStatus") -> tuple[str | None, ...]:
    return (
        row.worker,
        row.strategy or None,
        f"{row.since:%Y-%m-%d %H:%M:%S}" if row.since else None,
        _yes_no(row.proven, "-"),
        row.snapshot_id[:12] or None,
        ", ".join(_candidate(candidate) for candidate in row.candidates) or None,
    )


def _candidate(one: "StandingCandidate") -> str:
    if one.since is None:
        return f"{one.version} (not loaded)"
    return f"{one.version} {one.part.value} {one.share:.3g}" + ("" if one.proven else " (not proven)")


def _numbered(version: str | None, activation: int | None) -> str:
    return "-" if version is None else f"{version} #{activation}"


def _yes_no(value: bool | None, unknown: str) -> str:  # noqa: FBT001 - a value to show, not a switch
    return unknown if value is None else ("yes" if value else "no")
