"""`signal-worker publish-registry`: the registry's changes onto the control stream."""

import signal
from typing import Annotated

import typer

from worker.cli.session import endpoints_of, settings_of


def publish_registry(
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest time between two looks at the outbox.")
    ] = 5.0,
) -> None:
    """Tell the workers what changed in the registry, until SIGTERM; several may run, one publishes."""
    from contracts.streams import StreamNames
    from worker.lifecycle.publisher import Publisher, PublisherOptions
    from worker.telemetry import configure_logs

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
