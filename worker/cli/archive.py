"""`signal-worker archive`: outcomes to Parquet, so that they outlive their streams.

Exit codes: 0 done, 1 failed, 2 wrong call.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import refuse, settings_of

if TYPE_CHECKING:
    from worker.operations.archive import Archived
    from worker.settings import Settings


def archive(
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
    *,
    whole: Annotated[bool, typer.Option("--whole", help="Look at every entry, not from the last day on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add new vectors, shadow vectors and rejections to data/archive, a file a day; streams stay as they are."""
    from worker.errors import StreamUnavailable
    from worker.operations.archive import ArchiveUnusable

    settings = settings_of(namespace=namespace)
    try:
        reports = _archive(settings, whole=whole)
    except (StreamUnavailable, ArchiveUnusable) as error:
        refuse(error, code=1)
    if as_json:
        typer.echo(json.dumps([asdict(report) for report in reports], indent=2))
        return
    for report in reports:
        refused = f", {report.refused} left out as no outcome" if report.refused else ""
        typer.echo(f"{report.stream}: {report.added} added to {report.days} days, {report.read} read{refused}")


def _archive(settings: "Settings", *, whole: bool) -> "list[Archived]":
    from contracts import Rejection, SignalVector, StreamNames
    from worker.embedded import StackNotRunning, resolve_redis_url
    from worker.operations.archive import Archive, archive_stream
    from worker.transport.client import connect

    names = StreamNames(settings.namespace)
    try:
        url = resolve_redis_url(settings.redis_url, settings.local_dir)
    except StackNotRunning as error:
        refuse(error)
    kept = ((names.results, SignalVector), (names.rejections, Rejection), (names.shadow, SignalVector))
    client = connect(url, "signal-worker:archive")
    try:
        return [
            archive_stream(client, Archive(settings.data_dir, stream, model), whole=whole) for stream, model in kept
        ]
    finally:
        client.close()
