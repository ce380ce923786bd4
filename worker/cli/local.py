"""`signal-worker local`: the embedded Valkey and PostgreSQL, left running until stopped."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import ExitCode, Json, VerbGroup, print_json, refuse, settings_of
from worker.cli._tables import Column, print_table

if TYPE_CHECKING:
    from worker.embedded import LocalStack, StackStatus

app = typer.Typer(cls=VerbGroup, help="The embedded servers of the local directory.", no_args_is_help=True)

ValkeyBin = Annotated[
    Path | None, typer.Option(help="Folder of another valkey-server or redis-server.", exists=True, file_okay=False)
]
PostgresBin = Annotated[
    Path | None, typer.Option(help="Folder of another PostgreSQL's initdb and postgres.", exists=True, file_okay=False)
]


@app.command()
def up(*, valkey_bin: ValkeyBin = None, postgres_bin: PostgresBin = None, as_json: Json = False) -> None:
    """Start both servers and leave them running; harmless if they run already.

    JSON: directory, running, owner, endpoints, servers.

    Example: signal-worker local up
    """
    stack = _stack(valkey_bin=valkey_bin, postgres_bin=postgres_bin)
    try:
        stack.start()
        _print(stack.status(), as_json=as_json)
    except OSError as error:
        refuse(error, code=ExitCode.FAILED)


@app.command()
def down(
    *,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove their data too, for good.")] = False,
    as_json: Json = False,
) -> None:
    """Stop both servers; their data stay.

    JSON: stopped, wiped.

    Example: signal-worker local down
    """
    stack = _stack()
    try:
        stopped = stack.stop()
        if wipe:
            stack.wipe()
    except OSError as error:
        refuse(error, code=ExitCode.FAILED)
    if as_json:
        print_json({"stopped": stopped, "wiped": wipe})
    else:
        typer.echo("stopped" if stopped else "nothing was running")


@app.command()
def status(*, as_json: Json = False) -> None:
    """Show what runs; exit code 1 unless both servers do.

    JSON: directory, running, owner, endpoints, servers.

    Example: signal-worker local status --json
    """
    found = _stack().status()
    _print(found, as_json=as_json)
    if not found.running:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def env(*, as_json: Json = False) -> None:
    """Print both URLs as lines for a shell; exit code 1 unless both servers run.

    JSON: REDIS_URL, DATABASE_URL.

    Example: eval "$(signal-worker local env)" && redis-cli -u "$REDIS_URL" PING
    """
    from worker.embedded import StackNotRunning, resolve_endpoints

    try:
        endpoints = resolve_endpoints(None, None, settings_of().local_dir)
    except StackNotRunning as error:
        refuse(error, code=ExitCode.FAILED)
    if as_json:
        print_json({"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url})
        return
    typer.echo(f"export REDIS_URL={shlex.quote(endpoints.redis_url)}")
    typer.echo(f"export DATABASE_URL={shlex.quote(endpoints.database_url)}")


def _stack(*, valkey_bin: Path | None = None, postgres_bin: Path | None = None) -> "LocalStack":
    from worker.embedded import LocalStack

    return LocalStack(settings_of().local_dir, detached=True, valkey_bin=valkey_bin, postgres_bin=postgres_bin)


def _print(status: "StackStatus", *, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    rows = [
        (
            server.name,
            f"pid {server.pid}, {server.memory_bytes / 1e6:.0f} MB" if server.pid else "not running",
            server.data,
            server.log,
        )
        for server in status.servers
    ]
    print_table(("server", "state", Column("data", text=True), Column("log", text=True)), rows)
    if status.owner:
        typer.echo(f"they end with process {status.owner}")
    if status.endpoints:
        typer.echo(f"REDIS_URL={status.endpoints.redis_url}")
        typer.echo(f"DATABASE_URL={status.endpoints.database_url}")
