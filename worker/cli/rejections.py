"""`signal-worker rejections`: what could not be answered; put it back, or delete it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strategies.suggestions import did_you_mean
from worker.cli._common import ExitCode, Json, Namespace, VerbGroup, print_json, refuse, warn
from worker.cli._streams import span_ms, span_text, stream_server
from worker.cli._tables import Column, print_rows, print_table, right

if TYPE_CHECKING:
    from worker.operations.redrive import Filter, RedriveResult, RejectedRequest, Rejections

app = typer.Typer(cls=VerbGroup, help="Rejected requests: list, show, put back, delete.", no_args_is_help=True)

#: Requests put back by one call by default: they come back to the workers all at once.
REDRIVEN_AT_ONCE = 1000
#: Rejections deleted by one command.
_DELETED_AT_ONCE = 500

Code = Annotated[str | None, typer.Option(help="Only this rejection code.")]
Strategy = Annotated[str | None, typer.Option(help="Only this strategy.")]
OlderThan = Annotated[str | None, typer.Option(help="Only those at least so old: 90s, 15m, 2h, 3d.")]
NewerThan = Annotated[str | None, typer.Option(help="Only those at most so old: 90s, 15m, 2h, 3d.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many at most, the oldest first.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Request ids, or entry ids of rejections.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, only show what would be done.")]


@app.command("list")
def list_rejections(
    code: Code = None,
    strategy: Strategy = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """List rejections, the newest first.

    JSON: a list of: entry_id, request_id, request_entry_id, code, reason, deliveries, and what else the rejection
    has.

    Example: signal-worker rejections list --code stale_symbol --newer-than 2h
    """
    wanted = _filter(code, strategy, older_than, newer_than, limit)
    with _rejections(namespace) as rejections:
        found = list(rejections.found(wanted, newest_first=True))
        unreadable = rejections.unreadable
    if as_json:
        print_json([_fields(rejected) for rejected in found])
    else:
        print_rows([_row(rejected) for rejected in found], "rejections, newest first", text=("reason",))
    if unreadable:
        warn(f"{unreadable} entries on the stream are no rejections")


@app.command()
def show(
    wanted_id: Annotated[str, typer.Argument(metavar="ID", help="Request id, or entry id of the rejection.")],
    namespace: Namespace = None,
    *,
    as_json: Json = False,
) -> None:
    """Show one rejection, the request's fields, and whether it can be put back.

    JSON: entry_id, request_id, request_entry_id, code, reason, deliveries, fields, can_be_put_back, hindrance, and
    what else the rejection has.

    Example: signal-worker rejections show my-request-1
    """
    from worker.client.errors import RedriveRefused

    with _rejections(namespace) as rejections:
        rejected = _find(rejections, wanted_id)
        try:
            rejections.request_of(rejected)
            hindrance = ""
        except RedriveRefused as error:
            hindrance = str(error)
    fields = {**_fields(rejected), "can_be_put_back": not hindrance, "hindrance": hindrance}
    if as_json:
        print_json(fields)
        return
    asked = fields.pop("fields")
    value = Column("value", text=True)
    print_table(("field", value), [(name, text) for name, text in fields.items() if text != ""], title="rejection")
    print_table(("field", value), list(asked.items()), title="request as it came")


@app.command()
def redrive(
    ids: Ids = None,
    code: Code = None,
    strategy: Strategy = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = REDRIVEN_AT_ONCE,
    namespace: Namespace = None,
    *,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put requests back under their own ids: one named id at once, more or a filter with --yes.

    JSON: a list of: status, request_id, code, detail.

    Example: signal-worker rejections redrive --code stale_symbol --yes
    """
    wanted = _filter(code, strategy, older_than, newer_than, limit)
    _refuse_mixed(ids, wanted)
    with _rejections(namespace) as rejections:
        # All of them first: one that is rejected again at once must not be met again.
        chosen = list(_chosen(rejections, ids, wanted))
        act = yes or len(ids or ()) == 1
        rows = [_redriven(rejections, rejected, act=act) for rejected in chosen]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, "put back" if act else "nothing was done", text=("detail",))
        if rows and not act:
            typer.echo(f"{len(rows)} would be put back; repeat with --yes")
    if any(row["status"] in {"refused", "answered", "superseded"} for row in rows):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def purge(
    ids: Ids = None,
    code: Code = None,
    strategy: Strategy = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = None,
    namespace: Namespace = None,
    *,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete rejections; only with --yes. Requests and remembered ids stay as they are.

    JSON: matched, deleted, by_code.

    Example: signal-worker rejections purge --older-than 30d --yes
    """
    wanted = _filter(code, strategy, older_than, newer_than, limit)
    _refuse_mixed(ids, wanted)
    with _rejections(namespace) as rejections:
        counts, deleted = _purged(rejections, _chosen(rejections, ids, wanted), act=yes)
    matched = counts.total()
    if as_json:
        print_json({"matched": matched, "deleted": deleted, "by_code": dict(counts.most_common())})
        return
    print_table(("code", *right("rejections")), counts.most_common(), title="rejections selected")
    typer.echo(f"{deleted} deleted" if yes else f"{matched} would be deleted; repeat with --yes")


def _refuse_mixed(ids: Sequence[str] | None, wanted: "Filter") -> None:
    from dataclasses import replace

    from worker.operations.redrive import Filter

    if ids and replace(wanted, limit=None) != Filter():
        refuse("ids and filters were both given; name the ids, or select by filters")


def _chosen(rejections: "Rejections", ids: Sequence[str] | None, wanted: "Filter") -> "Iterable[RejectedRequest]":
    if ids:
        return [_find(rejections, wanted_id) for wanted_id in dict.fromkeys(ids)]
    return rejections.found(wanted)


def _purged(rejections: "Rejections", chosen: "Iterable[RejectedRequest]", *, act: bool) -> tuple[Counter[str], int]:
    """Return how many are selected a code, and how many were deleted; in constant memory."""
    counts: Counter[str] = Counter()
    deleted, batch = 0, []
    for rejected in chosen:
        counts[rejected.rejection.code.value] += 1
        batch.append(rejected.entry_id)
        if len(batch) == _DELETED_AT_ONCE:
            deleted += rejections.purge(batch) if act else 0
            batch.clear()
    return counts, deleted + (rejections.purge(batch) if act else 0)


def _find(rejections: "Rejections", wanted_id: str) -> "RejectedRequest":
    found = rejections.find(wanted_id)
    if found is None:
        refuse(f"no rejection of {wanted_id} is on the stream", code=ExitCode.NOT_FOUND)
    return found


def _redriven(rejections: "Rejections", rejected: "RejectedRequest", *, act: bool) -> dict[str, Any]:
    from worker.client.errors import RedriveRefused

    known = {"request_id": rejected.rejection.request_id, "code": rejected.rejection.code.value}
    try:
        if not act:
            rejections.request_of(rejected)
            return {"status": "would be put back", **known, "detail": ""}
        done = rejections.redrive(rejected)
    except RedriveRefused as error:
        return {"status": "refused", **known, "detail": str(error)}
    return {"status": done.status.value, **known, "detail": _sentence(done)}


def _sentence(done: "RedriveResult") -> str:
    from worker.operations.redrive import RedriveStatus

    return {
        RedriveStatus.REDRIVEN: f"as entry {done.entry_id}",
        RedriveStatus.ALREADY: f"as entry {done.entry_id}" if done.entry_id else "the rejection is gone",
        RedriveStatus.ANSWERED: f"it has a vector, entry {done.entry_id}",
        RedriveStatus.SUPERSEDED: f"it was rejected again since, entry {done.entry_id}",
    }[done.status]


def _filter(
    code: str | None, strategy: str | None, older_than: str | None, newer_than: str | None, limit: int | None
) -> "Filter":
    from contracts import RejectionCode
    from worker.operations.redrive import Filter

    try:
        wanted = None if code is None else RejectionCode(code)
    except ValueError:
        codes = [one.value for one in RejectionCode]
        refuse(f"--code was {code!r}, must be one of {', '.join(codes)}{did_you_mean(str(code), codes)}")
    return Filter(
        code=wanted,
        strategy=strategy,
        older_than_ms=span_ms(older_than, "--older-than"),
        newer_than_ms=span_ms(newer_than, "--newer-than"),
        limit=limit,
    )


@contextmanager
def _rejections(namespace: str | None) -> "Iterator[Rejections]":
    from worker.operations.redrive import Rejections

    with stream_server(namespace) as (client, names, settings):
        yield Rejections(client, names, remembered_seconds=settings.dedupe_seconds)


def _fields(rejected: "RejectedRequest") -> dict[str, Any]:
    return {"entry_id": rejected.entry_id, **_dumped(rejected)}


def _dumped(rejected: "RejectedRequest") -> dict[str, Any]:
    dumped = rejected.rejection.model_dump(mode="json", exclude_none=True)
    # The rejection's own `entry_id` is the request's place; beside the rejection's it needs its full name.
    return {"request_entry_id" if name == "entry_id" else name: value for name, value in dumped.items()}


def _row(rejected: "RejectedRequest") -> dict[str, Any]:
    import time

    return {
        "age": span_text(max(0.0, time.time() * 1000 - rejected.rejected_ms)),
        "request_id": rejected.rejection.request_id,
        "code": rejected.rejection.code.value,
        "strategy": rejected.strategy,
        "deliveries": rejected.rejection.deliveries,
        "reason": rejected.rejection.reason,
    }
