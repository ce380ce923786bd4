"""`signal-worker requests`: who is working on what, and what became of one request.

Exit codes: 0 done, 1 failed, 2 wrong call, 3 not found.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import refuse
from worker.cli._streams import NOT_FOUND, Json, Namespace, print_json, print_table, span_text, stream_server

if TYPE_CHECKING:
    from worker.operations.pending import PendingRequest, RequestRecord, Requests

app = typer.Typer(help="Requests: who works on what, what became of one.", no_args_is_help=True)


@app.command()
def pending(
    limit: Annotated[int, typer.Option(min=1, help="Look at so many at most, the oldest first.")] = 100,
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show every request that was delivered and has no outcome yet, the longest idle first."""
    with _requests(namespace) as requests:
        found = requests.pending(limit=limit)
    if as_json:
        from dataclasses import asdict

        print_json(asdict(found))
        return
    print_table([_row(one) for one in found.requests], "pending requests, longest idle first")
    unread = "unknown to the server" if found.unread is None else found.unread
    typer.echo(f"pending: {found.total}, shown: {len(found.requests)}, not read yet: {unread}")


@app.command()
def show(
    request_id: Annotated[str, typer.Argument(help="As the producer chose it, or the entry id of the request.")],
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what is remembered of a request id, and its outcome."""
    with _requests(namespace) as requests:
        record = requests.record(request_id)
        claimed = next((one for one in requests.pending(limit=1000).requests if one.request_id == request_id), None)
    if not record.remembered and claimed is None:
        refuse(f"nothing is remembered of request {request_id}, and it is not pending", code=NOT_FOUND)
    if as_json:
        print_json(_fields(record, claimed))
    else:
        _show(record, claimed)


def _fields(record: "RequestRecord", claimed: "PendingRequest | None") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "request_id": record.request_id,
        "remembered": record.remembered,
        "forgotten_in_ms": record.forgotten_in_ms,
        "pending": asdict(claimed) if claimed else None,
        "outcome": record.outcome.model_dump(mode="json", exclude_none=True) if record.outcome else None,
    }


def _show(record: "RequestRecord", claimed: "PendingRequest | None") -> None:
    from worker.cli.request import show as show_outcome

    if record.remembered:
        rows = [{"what": name.replace("_", " "), "value": value} for name, value in record.remembered.items()]
        if record.forgotten_in_ms is not None:
            rows.append({"what": "forgotten in", "value": span_text(record.forgotten_in_ms)})
        print_table(rows, f"remembered of {record.request_id}")
    if claimed is not None:
        print_table([_row(claimed)], "pending")
    if record.outcome is not None:
        show_outcome(record.outcome)
    elif "entry" in record.remembered:
        typer.echo("its outcome has been cut from its stream since")


def _row(one: "PendingRequest") -> dict[str, Any]:
    holder = one.holder
    beaten = "" if holder.beaten_ms_ago is None else f", beat {span_text(holder.beaten_ms_ago)} ago"
    return {
        "request_id": one.request_id,
        "held_by": holder.name,
        "worker": f"{holder.state}{beaten}" + (f" ({holder.reason})" if holder.reason else ""),
        "idle": span_text(one.idle_ms),
        "age": span_text(one.age_ms),
        "delivery": one.deliveries,
        "last_error": "the entry was cut from the stream" if one.trimmed else one.last_error,
    }


@contextmanager
def _requests(namespace: str | None) -> "Iterator[Requests]":
    from worker.operations.pending import Requests

    with stream_server(namespace) as (client, names, _):
        yield Requests(client, names)
