"""What the verbs about streams share: the connection, spans of time, tables and JSON.

Owns: exit codes 1 (failed), 2 (wrong call), 3 (not found); how rows are shown to people and to programs.
Must not know: what is asked of the streams.
Invariant: an outage ends a verb with one sentence; JSON has every row, a table states how many it leaves out.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import endpoints_of, refuse, settings_of

if TYPE_CHECKING:
    from contracts import StreamNames
    from worker.settings import Settings
    from worker.transport.client import Client

FAILED, NOT_FOUND = 1, 3
#: Most rows of a table that is shown beside an action; JSON has them all.
ROWS_SHOWN = 50

Namespace = Annotated[str | None, typer.Option(help="Prefix of every key on the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@contextmanager
def stream_server(namespace: str | None) -> "Iterator[tuple[Client, StreamNames, Settings]]":
    """Give a connection to one verb; an outage ends it with one sentence."""
    from contracts import StreamNames
    from worker.errors import StreamUnavailable
    from worker.transport.client import connect

    settings = settings_of(namespace=namespace)
    client = connect(endpoints_of(settings).redis_url, "signal-worker-operator")
    try:
        yield client, StreamNames(settings.namespace), settings
    except StreamUnavailable as error:
        refuse(error, code=FAILED)
    finally:
        client.close()


def span_ms(text: str | None, option: str) -> int | None:
    """Return the milliseconds of `90s`, `15m`, `2h` or `3d`, or end with a sentence; None where nothing was typed."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        refuse(f"{option} was {text!r}, must be a number with s, m, h or d, e.g. 90s or 2h")
    return int(float(found[1]) * _UNITS_MS[found[2]])


def span_text(ms: float) -> str:
    """Return a span in the largest unit of which it is at least one."""
    for unit in ("d", "h", "m"):
        if ms >= _UNITS_MS[unit]:
            return f"{ms / _UNITS_MS[unit]:.1f}{unit}"
    return f"{ms / 1000:.1f}s"


def print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Print rows under their names, the first ones where there are very many."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows[:ROWS_SHOWN]:
        # Text, not markup: what producers sent must never be read as formatting.
        table.add_row(*(Text(str(cell)) for cell in row.values()))
    Console().print(table)
    if len(rows) > ROWS_SHOWN:
        typer.echo(f"and {len(rows) - ROWS_SHOWN} more")


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=1))
