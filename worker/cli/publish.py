"""`signal-worker publish-registry`: the registry's changes onto the control stream."""

import signal
from typing import Annotated

import typer

from worker.cli._common import (
    ExitCode,
    Json,
    Namespace,
    database_url_of,
    endpoints_of,
    print_json,
    refuse,
    settings_of,
)
from worker.cli._tables import print_line


def publish_registry(
    namespace: Namespace = None,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest time between two looks at the outbox.")
    ] = 5.0,
    *,
    check: Annotated[
        bool,
        typer.Option("--check", help="Publish nothing; show the state of publishing, exit code 1 if nobody publishes."),
    ] = False,
    late_seconds: Annotated[
        float, typer.Option(min=1, help="With --check: age from which an event that was not published is late.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Publish the registry's changes to the workers, until SIGTERM; several may run, one publishes.

    JSON: with --check: led, waiting, oldest_seconds.

    Example: signal-worker publish-registry --check --json
    """
    if check:
        _check(late_seconds, as_json=as_json)
        return
    if as_json:
        refuse("--json goes with --check: publishing itself prints no facts")
    from contracts.streams import StreamNames
    from worker.registry.publisher import Publisher, PublisherOptions
    from worker.runtime import configure_logs

    settings = settings_of(namespace=namespace)
    configure_logs(settings.log_level, settings.log_format)
    endpoints = endpoints_of(settings)
    options = PublisherOptions(
        poll_seconds=poll_seconds,
        backoff_max_seconds=settings.backoff_max_seconds,
        control_maxlen=settings.control_maxlen,
    )
    names = StreamNames(settings.namespace, settings.partition)
    with Publisher(endpoints.database_url, endpoints.redis_url, names, options) as publisher:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: publisher.stop())
        publisher.run()


def _check(late_seconds: float, *, as_json: bool) -> None:
    from worker.registry.outbox import publisher_status

    found = publisher_status(database_url_of(settings_of()))
    oldest = f", the oldest for {found.oldest_seconds:.1f} s" if found.waiting else ""
    if as_json:
        print_json(found)
    else:
        print_line(f"{'a publisher' if found.led else 'nobody'} publishes; events that wait: {found.waiting}{oldest}")
    if not found.led or found.oldest_seconds > late_seconds:
        raise typer.Exit(ExitCode.FAILED)
