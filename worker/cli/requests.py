"""`signal-worker requests`: who is working on what, and what became of one request."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import ExitCode, Json, Namespace, VerbGroup, print_json, refuse
from worker.cli._fleet import read_fleet
from worker.cli._streams import span_text, stream_server
from worker.cli._tables import Column, print_rows, print_table

if TYPE_CHECKING:
    from worker.operations.pending import PendingList, PendingRequest, RequestPlace, Requests, WaitingRequest

app = typer.Typer(cls=VerbGroup, help="Requests: who works on what, what became of one.", no_args_is_help=True)

#: Columns of free text.
_TEXT = ("worker", "last_error")


@app.command()
def pending(
    limit: Annotated[int, typer.Option(min=1, help="Look at so many at most, the oldest first.")] = 100,
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show every request that was delivered and has no outcome yet, the longest idle first.

    JSON: total, unread, requests.

    Example: signal-worker requests pending --limit 20
    """
    with _requests(namespace) as (requests, states):
        found = _with_states(requests.pending(limit=limit), states)
    if as_json:
        print_json(found)
        return
    print_rows([_row(one) for one in found.requests], "pending requests, longest idle first", text=_TEXT)
    unread = "unknown to the server" if found.unread is None else found.unread
    typer.echo(f"pending: {found.total}, shown: {len(found.requests)}, not read yet: {unread}")


@app.command()
def show(
    request_id: Annotated[str, typer.Argument(help="As the producer chose it, or the entry id of the request.")],
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what is remembered of a request id, and its outcome.

    JSON: request_id, remembered, forgotten_in_ms, waiting, pending, outcome.

    Example: signal-worker requests show my-request-1
    """
    with _requests(namespace) as (requests, states):
        place = _with_state(requests.find(request_id), states)
    if not place.record.remembered and place.claimed is None and place.waiting is None:
        refuse(f"nothing is remembered of request {request_id}, and {not_found_text(place)}", code=ExitCode.NOT_FOUND)
    if as_json:
        print_json(_fields(place))
    else:
        _show(place)


def _fields(place: "RequestPlace") -> dict[str, Any]:
    record = place.record
    return {
        "request_id": record.request_id,
        "remembered": record.remembered,
        "forgotten_in_ms": record.forgotten_in_ms,
        "waiting": place.waiting,
        "pending": place.claimed,
        "outcome": record.outcome,
    }


def _show(place: "RequestPlace") -> None:
    from worker.cli.request import show as show_outcome

    record = place.record
    if record.remembered:
        rows = [(name.replace("_", " "), value) for name, value in record.remembered.items()]
        if record.forgotten_in_ms is not None:
            rows.append(("forgotten in", span_text(record.forgotten_in_ms)))
        print_table(("field", Column("value", text=True)), rows, title=f"remembered of {record.request_id}")
    if place.waiting is not None:
        typer.echo(waiting_text(place.waiting))
    if place.claimed is not None:
        print_rows([_row(place.claimed)], "pending", text=_TEXT)
    if record.outcome is not None:
        show_outcome(record.outcome)
    elif place.answered:
        typer.echo("its outcome has been cut from its stream since")


def not_found_text(place: "RequestPlace") -> str:
    """Return what is known of an entry that was not found."""
    from worker.operations.pending import PENDING_SEARCHED, WAITING_SEARCHED

    if place.incomplete:
        return (
            f"it is not among the oldest {PENDING_SEARCHED:,} that are pending and the first {WAITING_SEARCHED:,} "
            "that wait; more are there"
        )
    return "it is neither pending nor waiting on the stream"


def waiting_text(waiting: "WaitingRequest") -> str:
    """Return where a request is that nobody was given yet."""
    before = "the next one" if not waiting.ahead else f"{waiting.ahead} before it"
    return f"on the stream as {waiting.entry_id} for {span_text(waiting.age_ms)}, not delivered yet, {before}"


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
def _requests(namespace: str | None) -> "Iterator[tuple[Requests, dict[str, str]]]":
    """Yield the requests, and each worker's state."""
    from worker.operations.pending import Requests

    with stream_server(namespace) as (client, names, _):
        yield Requests(client, names), {beat.worker: beat.state for beat in read_fleet(client, names)}


def _with_states(found: "PendingList", states: dict[str, str]) -> "PendingList":
    """Return the list with workers that miss their heartbeats as silent, as `models status` shows them."""
    return replace(found, requests=tuple(_stated(one, states) for one in found.requests))


def _with_state(place: "RequestPlace", states: dict[str, str]) -> "RequestPlace":
    return replace(place, claimed=place.claimed and _stated(place.claimed, states))


def _stated(one: "PendingRequest", states: dict[str, str]) -> "PendingRequest":
    return replace(one, holder=replace(one.holder, state=states.get(one.holder.name, one.holder.state)))
