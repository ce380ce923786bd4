"""`signal-worker run`: one worker process, or several under a supervisor."""

import secrets
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import Namespace, endpoints_of, settings_of

if TYPE_CHECKING:
    from worker.settings import Settings


def run(
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option(help="Name of this consumer; keep it to resume its own entries.")] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies to serve, comma-separated; all by default.")
    ] = None,
    health_port: Annotated[int | None, typer.Option(help="Port of /livez, /readyz and /metrics; 0: none.")] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Workers under a supervisor that restarts those that die or hang."),
    ] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Answer signal requests until SIGTERM.

    Example: signal-worker run --processes 2 --health-port 8080
    """
    if lifeline is not None:
        from worker.embedded.processes import die_with_parent

        die_with_parent()
    from worker.runtime import configure_logs

    settings = settings_of(namespace=namespace, worker_name=name, strategies=strategies, health_port=health_port)
    configure_logs(settings.log_level, settings.log_format)
    if processes is not None:
        endpoints_of(settings)
        raise typer.Exit(_supervise(settings, processes))
    from worker.app import Worker

    raise typer.Exit(Worker(settings, endpoints_of(settings), lifeline=lifeline).run())


def _supervise(settings: "Settings", processes: int) -> int:
    from worker.fleet.supervisor import Child, Supervisor, SupervisorTimeouts

    base = settings.worker_name or f"{socket.gethostname()}-{secrets.token_hex(3)}"
    children = [Child(f"{base}-{place}", _command(settings, f"{base}-{place}", place)) for place in range(processes)]
    patiences = SupervisorTimeouts(
        hung_after_seconds=settings.hung_after_seconds,
        shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
        restart_max_seconds=settings.restart_max_seconds,
    )
    return Supervisor(children, patiences).run()


def _command(settings: "Settings", name: str, place: int) -> list[str]:
    """Return the command line of one worker; the environment carries the rest."""
    port = settings.health_port + place if settings.health_port else 0
    command = [sys.executable, "-m", "worker", "run", "--name", name, "--namespace", settings.namespace]
    command += ["--health-port", str(port)]
    return [*command, "--strategies", ",".join(settings.strategies)] if settings.strategies else command
