"""`signal-worker models status`: what each living worker serves, beside what the registry says.

Exit codes: 0 all workers serve what they should, 1 one differs, none lives, or a server is unavailable, 2 wrong call.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import refuse, settings_of
from worker.cli._registry import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from contracts import Heartbeat, StandingCandidate
    from worker.operations.fleet_status import Standing
    from worker.registry.models import ActiveModel
    from worker.settings import Settings


def status(
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what each living worker serves, and whether it is what the registry says (exit code 1 if not)."""
    from worker.operations.fleet_status import standings

    settings = settings_of(namespace=namespace)
    beats, active = _beats(settings), _active()
    found = standings(beats, active)
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in found], indent=2, default=str))
    else:
        _show(found, beats)
    if not beats:
        refuse(f"no worker lives in {settings.namespace}", code=1)
    if not all(one.equal for one in found):
        raise typer.Exit(1)


def _beats(settings: "Settings") -> "list[Heartbeat]":
    from worker.client import SignalClient
    from worker.embedded import StackNotRunning, resolve_redis_url
    from worker.errors import StreamUnavailable

    try:
        url = resolve_redis_url(settings.redis_url, settings.local_dir)
        with SignalClient(url, namespace=settings.namespace) as client:
            return client.workers()
    except StackNotRunning as error:
        refuse(error)
    except StreamUnavailable as error:
        refuse(error, code=1)


def _active() -> "Mapping[str, ActiveModel] | None":
    from worker.errors import RegistryUnavailable
    from worker.registry.registry import Registry

    try:
        with Registry(database_url(), name="signal-worker models") as registry:
            return registry.active_models()
    except RegistryUnavailable as error:
        # What serves is worth seeing above all while the registry is unavailable.
        typer.echo(f"signal-worker: the registry cannot be asked: {error}", err=True)
        return None


def _as_json(one: "Standing") -> dict[str, object]:
    return asdict(one) | {"candidates": [candidate.model_dump(mode="json") for candidate in one.candidates]}


def _show(found: "list[Standing]", beats: "list[Heartbeat]") -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(found))
    for beat in beats:
        if beat.reason:
            console.print(f"{beat.worker}: {beat.reason}", highlight=False, markup=False, soft_wrap=True)
        for one in beat.candidates:
            if one.reason:
                console.print(
                    f"{beat.worker}: {one.strategy} {one.version} does not compute: {one.reason}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )


def _table(found: "list[Standing]") -> "Table":
    from rich.table import Table

    table = Table(
        "worker", "state", "strategy", "serves", "since", "proven", "in testing", "snapshot", "registry", "equal"
    )
    for one in found:
        table.add_row(
            one.worker,
            one.state,
            one.strategy or "-",
            _numbered(one.version, one.activation) + (" (cache)" if one.cached else ""),
            f"{one.since:%Y-%m-%d %H:%M:%S} UTC" if one.since else "-",
            _yes_no(one.proven, "-"),
            ", ".join(_candidate(candidate) for candidate in one.candidates) or "-",
            one.snapshot_id[:12] or "-",
            _numbered(one.active_version, one.active_activation) if one.equal is not None else "?",
            _yes_no(one.equal, "?"),
        )
    return table


def _candidate(one: "StandingCandidate") -> str:
    if one.since is None:
        return f"{one.version} (not loaded)"
    return f"{one.version} {one.part.value} {one.share:.3g}" + ("" if one.proven else " (not proven)")


def _numbered(version: str | None, activation: int | None) -> str:
    return "-" if version is None else f"{version} #{activation}"


def _yes_no(value: bool | None, unknown: str) -> str:  # noqa: FBT001 - a value to show, not a switch
    return unknown if value is None else ("yes" if value else "no")
