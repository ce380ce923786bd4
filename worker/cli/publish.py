"""`signal-worker publish-registry`: the registry's changes onto the control stream."""

import signal
from typing import Annotated

import typer

from worker.cli._common import endpoints_of, settings_of
from worker.cli._registry import FAILED, database_url, refusals


def publish_registry(
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
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
) -> None:
    """Publish the registry's changes to the workers, until SIGTERM; several may run, one publishes."""
    if check:
        _check(late_seconds)
        return
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
    names = StreamNames(settings.namespace)
    with Publisher(endpoints.database_url, endpoints.redis_url, names, options) as publisher:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: publisher.stop())
        publisher.run()


def _check(late_seconds: float) -> None:
    from worker.registry.outbox import standing

    with refusals():
        found = standing(database_url())
    oldest = f", the oldest for {found.oldest_seconds:.1f} s" if found.waiting else ""
    typer.echo(f"{'a publisher' if found.led else 'nobody'} publishes; events that wait: {found.waiting}{oldest}")
    if not found.led or found.oldest_seconds > late_seconds:
        raise typer.Exit(FAILED)
