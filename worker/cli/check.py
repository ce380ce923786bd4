"""`signal-worker check`: whether both servers and their logins are enough for a role."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import (
    ExitCode,
    Json,
    Namespace,
    database_url_of,
    print_json,
    redis_url_of,
    refuse,
    settings_of,
)
from worker.cli._tables import print_table

if TYPE_CHECKING:
    from worker.transport.requirements import Finding

_MARKS = {True: "yes", False: "no", None: "unknown"}


def check(
    role: Annotated[str, typer.Argument(help="What is to run: worker, publisher, producer or gateway.")],
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what a role needs of both servers, and what there is; exit code 2 where something is missing.

    JSON: a list of: server, need, found, met.

    Example: signal-worker check worker
    """
    from contracts.streams import StreamNames
    from worker.registry.requirements import RegistryRole, registry_findings
    from worker.transport.client import connect
    from worker.transport.requirements import StreamRole, stream_findings

    if role not in [*StreamRole]:
        refuse(f"there is no role {role!r}, only {', '.join(StreamRole)}")
    settings = settings_of(namespace=namespace)
    names = StreamNames(settings.namespace, settings.partition)
    with connect(redis_url_of(settings), "check") as client:
        found = [("streams", finding) for finding in stream_findings(client, names, StreamRole(role))]
    if role in [*RegistryRole]:
        found += [("registry", each) for each in registry_findings(database_url_of(settings), RegistryRole(role))]
    if as_json:
        print_json([{"server": server, **asdict(finding)} for server, finding in found])
    else:
        print_table(["server", "need", "found", "met"], [_row(server, finding) for server, finding in found])
    if any(finding.met is False for _, finding in found):
        raise typer.Exit(ExitCode.USAGE)


def _row(server: str, finding: "Finding") -> tuple[str, str, str, str]:
    return server, finding.need, finding.found, _MARKS[finding.met]
