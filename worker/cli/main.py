"""`signal-worker`: every verb of the command line.

Owns: which verbs there are and in which file each lives.
Must not know: what a verb does.
Invariant: a verb imports what it needs when it is called, so that `run` starts without training code and Qlib.
"""

from typing import Annotated

import typer

from worker.cli import control, data, db, features, local, models, rejections, requests
from worker.cli._common import ExitCode, VerbGroup
from worker.cli.archive import archive
from worker.cli.check import check
from worker.cli.demo import demo
from worker.cli.gateway import gateway
from worker.cli.publish import publish_registry
from worker.cli.replay import replay
from worker.cli.report import report
from worker.cli.request import request
from worker.cli.run import run
from worker.cli.settings import settings
from worker.cli.train import train

app = typer.Typer(
    name="signal-worker",
    cls=VerbGroup,
    epilog="Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        from importlib.metadata import version

        typer.echo(f"signal-worker {version('signal-worker')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Answer signal requests from Redis Streams with weights from a proven model."""


app.command()(run)
app.command()(request)
app.command("publish-registry")(publish_registry)
app.command()(gateway)
app.command()(train)
app.command()(demo)
app.command()(settings)
app.command()(check)
app.command()(replay)
app.command()(report)
app.command()(archive)
app.add_typer(control.app, name="control")
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")
app.add_typer(local.app, name="local")
app.add_typer(rejections.app, name="rejections")
app.add_typer(requests.app, name="requests")


def main() -> None:
    """Run the command line."""
    from worker.runtime import configure_logs

    configure_logs("INFO", "auto")  # verbs that run for long set their own
    app()
