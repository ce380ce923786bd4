"""`signal-worker run`: one worker process."""

from typing import Annotated

import typer

from worker.cli.session import endpoints_of, refuse, settings_of


def run(
    namespace: Annotated[str | None, typer.Option(help="Prefix of every key on the server.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this consumer; keep it to resume its own entries.")] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies to serve, comma-separated; all by default.")
    ] = None,
) -> None:
    """Answer signal requests until SIGTERM."""
    from worker.app import Worker
    from worker.errors import SettingsError
    from worker.telemetry import configure_logs

    settings = settings_of(namespace=namespace, worker_name=name, strategies=strategies)
    configure_logs(settings.log_level, settings.log_format)
    try:
        raise typer.Exit(Worker(settings, endpoints_of(settings)).run())
    except SettingsError as error:
        refuse(error)
