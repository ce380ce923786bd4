"""`signal-worker archive`: outcomes to Parquet, so that they outlive their streams."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import ExitCode, Json, Namespace, print_json, redis_url_of, refuse, settings_of

if TYPE_CHECKING:
    from worker.operations.archive import Archived
    from worker.settings import Settings


def archive(
    namespace: Namespace = None,
    *,
    whole: Annotated[bool, typer.Option("--whole", help="Look at every entry, not from the last day on.")] = False,
    as_json: Json = False,
) -> None:
    """Add new vectors, probes, shadow vectors and rejections to data/archive, a file a day; streams stay as they are.

    Probes have a folder of their own, which no evidence for a promotion is read from.

    JSON: a list of: stream, read, added, refused, days.

    Example: signal-worker archive --json
    """
    from worker.operations.archive import ArchiveUnusable

    settings = settings_of(namespace=namespace)
    try:
        reports = _archive(settings, whole=whole)
    except ArchiveUnusable as error:
        refuse(error, code=ExitCode.FAILED)
    if as_json:
        print_json(reports)
        return
    for report in reports:
        refused = f", {report.refused} left out as no outcome" if report.refused else ""
        typer.echo(f"{report.stream}: {report.added} added to {report.days} days, {report.read} read{refused}")


def _archive(settings: "Settings", *, whole: bool) -> "list[Archived]":
    from contracts import Rejection, SignalVector, StreamNames
    from worker.operations.archive import Archive, archive_stream
    from worker.transport.client import connect

    names = StreamNames(settings.namespace, settings.partition)
    kept = (
        (names.results, SignalVector),
        (names.rejections, Rejection),
        (names.shadow, SignalVector),
        (names.probes, SignalVector),
    )
    client = connect(redis_url_of(settings), "signal-worker:archive")
    try:
        return [
            archive_stream(client, Archive(settings.data_dir, stream, model), whole=whole) for stream, model in kept
        ]
    finally:
        client.close()
