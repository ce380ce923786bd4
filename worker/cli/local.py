"""`signal-worker local`: the embedded Valkey and PostgreSQL, left running until stopped."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import refuse, settings_of

if TYPE_CHECKING:
    from worker.embedded import LocalStack, StackStatus

app = typer.Typer(help="The embedded servers of the local directory.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ValkeyBin = Annotated[
    Path | None, typer.Option(help="Folder of another valkey-server or redis-server.", exists=True, file_okay=False)
]
PostgresBin = Annotated[
    Path | None, typer.Option(help="Folder of another PostgreSQL's initdb and postgres.", exists=True, file_okay=False)
]

#: Exit code of a stack that did not start, or does not run.
FAILED = 1


@app.command()
def up(*, valkey_bin: ValkeyBin = None, postgres_bin: PostgresBin = None, as_json: Json = False) -> None:
    """Start both servers and leave them running; harmless if they run already."""
    stack = _stack(valkey_bin=valkey_bin, postgres_bin=postgres_bin)
    with _refusals():
        stack.start()
        _print(stack.status(), as_json=as_json)


@app.command()
def down(*, wipe: Annotated[bool, typer.Option("--wipe", help="Remove their data too, for good.")] = False) -> None:
    """Stop both servers; their data stay."""
    stack = _stack()
    with _refusals():
        typer.echo("stopped" if stack.stop() else "nothing was running")
        if wipe:
            stack.wipe()


@app.command()
def status(*, as_json: Json = False) -> None:
    """Show what runs; exit code 1 unless both servers do."""
    with _refusals():
        found = _stack().status()
        _print(found, as_json=as_json)
    if not found.running:
        raise typer.Exit(FAILED)


@app.command()
def env() -> None:
    """Print both URLs as lines for a shell; exit code 1 unless both servers run.

    Example: eval "$(signal-worker local env)" && redis-cli -u "$REDIS_URL" PING
    """
    from worker.embedded import StackNotRunning, resolve_endpoints

    with _refusals():
        try:
            endpoints = resolve_endpoints(None, None, settings_of().local_dir)
        except StackNotRunning as error:
            refuse(error, code=FAILED)
    typer.echo(f"export REDIS_URL={shlex.quote(endpoints.redis_url)}")
    typer.echo(f"export DATABASE_URL={shlex.quote(endpoints.database_url)}")


def _stack(*, valkey_bin: Path | None = None, postgres_bin: Path | None = None) -> "LocalStack":
    from worker.embedded import LocalStack

    return LocalStack(settings_of().local_dir, detached=True, valkey_bin=valkey_bin, postgres_bin=postgres_bin)


@contextmanager
def _refusals() -> Iterator[None]:
    from worker.embedded import StackError

    try:
        yield
    except (StackError, OSError) as error:
        refuse(error, code=FAILED)


def _print(status: "StackStatus", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(status), indent=2, default=str))
        return
    for server in status.servers:
        what = f"pid {server.pid}, {server.memory_bytes / 1e6:.0f} MB" if server.pid else "not running"
        typer.echo(f"{server.name:<9} {what}; data {server.data}; log {server.log}")
    if status.owner:
        typer.echo(f"they end with process {status.owner}")
    if status.endpoints:
        typer.echo(f"REDIS_URL={status.endpoints.redis_url}")
        typer.echo(f"DATABASE_URL={status.endpoints.database_url}")
