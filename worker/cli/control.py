"""`signal-worker control`: send commands to workers, and show which of them carried them out.

Exit codes: 0 done, 1 a worker did not (or the server is unavailable), 2 wrong call.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.control import OF_WHOLE_WORKERS, ControlEvent, ControlType
from worker.cli._common import refuse, settings_of
from worker.cli._registry import operator

if TYPE_CHECKING:
    from worker.operations.commands import Answer
    from worker.settings import Settings

app = typer.Typer(help="Send commands to workers, and show which of them carried them out.", no_args_is_help=True)

_VERBS = {
    "reload": (ControlType.RELOAD, "Look at the registry and the data now; try again what was refused."),
    "pause": (ControlType.PAUSE, "Read no more requests, until resumed."),
    "resume": (ControlType.RESUME, "Read requests again."),
    "drain": (ControlType.DRAIN, "Finish what was read, and end."),
    "ping": (ControlType.PING, "Answer, and nothing else."),
    "refresh-data": (ControlType.DATA_REFRESHED, "Look for a new snapshot now."),
}

Worker = Annotated[str | None, typer.Option(help="Name of one worker; all by default.")]
Strategy = Annotated[str | None, typer.Option(help="Strategy that it is about; all by default.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept on the control stream.")]
Namespace = Annotated[str | None, typer.Option(help="Prefix of every key on the server.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for every living worker's answer.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _verb(kind: ControlType) -> Callable[..., None]:
    def verb(
        worker: Worker = None,
        strategy: Strategy = None,
        reason: Reason = None,
        namespace: Namespace = None,
        *,
        wait: Wait = False,
        timeout: Timeout = 30.0,
        as_json: Json = False,
    ) -> None:
        from pydantic import ValidationError

        if strategy is not None and kind in OF_WHOLE_WORKERS:
            refuse(f"{kind.value} is about whole workers, it takes no --strategy; name a worker with --worker")
        try:
            event = ControlEvent(type=kind, worker=worker, strategy=strategy, by=operator(), reason=reason)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            refuse(f"{first['loc'][0]} was {first['input']!r}: {first['msg']}")
        _send(event, settings_of(namespace=namespace), timeout if wait else None, as_json=as_json)

    return verb


for _name, (_kind, _help) in _VERBS.items():
    app.command(_name, help=_help)(_verb(_kind))


def _send(event: ControlEvent, settings: "Settings", timeout: float | None, *, as_json: bool) -> None:
    from worker.errors import StreamUnavailable

    try:
        control_id, answers = _answers(event, settings, timeout)
    except StreamUnavailable as error:
        refuse(error, code=1)
    if as_json:
        typer.echo(json.dumps({"control_id": control_id, "answers": [asdict(one) for one in answers]}, indent=2))
    else:
        _show(event, control_id, answers)
    if timeout is not None:
        if not answers:
            refuse(f"no worker{f' {event.worker}' if event.worker else ''} lives in {settings.namespace}", code=1)
        if not all(answer.done for answer in answers):
            raise typer.Exit(1)


def _answers(event: ControlEvent, settings: "Settings", timeout: float | None) -> "tuple[str, list[Answer]]":
    from contracts import StreamNames
    from worker.client import SignalClient
    from worker.embedded import StackNotRunning, resolve_redis_url
    from worker.operations.commands import BLOCK_MS, Commander
    from worker.transport.client import connect

    try:
        url = resolve_redis_url(settings.redis_url, settings.local_dir)
    except StackNotRunning as error:
        refuse(error)
    client = connect(url, "signal-worker:control", block_ms=BLOCK_MS)
    try:
        commander = Commander(client, StreamNames(settings.namespace), maxlen=settings.control_maxlen)
        if timeout is None:
            return commander.send(event), []
        with SignalClient(url, namespace=settings.namespace) as fleet:
            living = fleet.workers()
        control_id = commander.send(event)
        return control_id, commander.answers(event, control_id, living, timeout)
    finally:
        client.close()


def _show(event: ControlEvent, control_id: str, answers: "list[Answer]") -> None:
    from rich.console import Console
    from rich.table import Table

    typer.echo(f"sent {event.type.value} as {control_id}")
    if not answers:
        return
    table = Table("worker", "did it", "after ms", "took ms", "why not")
    for answer in answers:
        reason = answer.reason if answer.after_ms is not None else "no answer"
        table.add_row(
            answer.worker, "yes" if answer.done else "no", _number(answer.after_ms), _number(answer.duration_ms), reason
        )
    Console().print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
