"""`signal-worker control`: send commands to workers, and show which of them carried them out.

Exit codes with --wait: 1 a worker failed or none is there, 7 a worker did not answer in time.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from contracts.control import OF_WHOLE_WORKERS, ControlEvent, ControlType
from strategies.suggestions import did_you_mean
from worker.cli._common import (
    ExitCode,
    Json,
    Namespace,
    VerbGroup,
    operator,
    print_json,
    redis_url_of,
    refuse,
    settings_of,
)
from worker.cli._tables import Column, print_table, right

if TYPE_CHECKING:
    from worker.operations.commands import CommandReply
    from worker.settings import Settings

app = typer.Typer(
    cls=VerbGroup, help="Send commands to workers, and show which of them carried them out.", no_args_is_help=True
)

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
Wait = Annotated[bool, typer.Option("--wait", help="Wait for every living worker's answer.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait.")]


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


_JSON = "JSON: control_id, answers (worker after_ms duration_ms reason)."

for _name, (_kind, _help) in _VERBS.items():
    app.command(_name, help=f"{_help}\n\n{_JSON}\n\nExample: signal-worker control {_name} --wait --timeout 10")(
        _verb(_kind)
    )


def _send(event: ControlEvent, settings: "Settings", timeout: float | None, *, as_json: bool) -> None:
    control_id, answers, living = _answers(event, settings, timeout)
    if as_json:
        print_json({"control_id": control_id, "answers": answers})
    else:
        _show(event, control_id, answers)
    if timeout is None:
        return
    if not answers:
        named = f" {event.worker}" if event.worker else ""
        hint = did_you_mean(event.worker, living) if event.worker else ""
        remedy = hint or ": `signal-worker run` starts one"
        refuse(f"no worker{named} lives in {settings.namespace}{remedy}", ExitCode.FAILED)
    if any(answer.reason for answer in answers):
        raise typer.Exit(ExitCode.FAILED)
    if silent := [answer.worker for answer in answers if answer.after_ms is None]:
        refuse(f"no answer within {timeout:g} s from {', '.join(silent)}", ExitCode.TIMEOUT)


def _answers(
    event: ControlEvent, settings: "Settings", timeout: float | None
) -> "tuple[str, list[CommandReply], list[str]]":
    """Return the id of the event, what was answered, and who lives."""
    from contracts import StreamNames
    from worker.client import SignalClient
    from worker.operations.commands import BLOCK_MS, Commander
    from worker.transport.client import connect

    url = redis_url_of(settings)
    client = connect(url, "signal-worker:control", block_ms=BLOCK_MS)
    try:
        commander = Commander(
            client, StreamNames(settings.namespace, settings.partition), maxlen=settings.control_maxlen
        )
        if timeout is None:
            return commander.send(event), [], []
        with SignalClient(url, namespace=settings.namespace, partition=settings.partition) as fleet:
            living = fleet.workers()
        control_id = commander.send(event)
        return control_id, commander.replies(event, control_id, living, timeout), [beat.worker for beat in living]
    finally:
        client.close()


def _show(event: ControlEvent, control_id: str, answers: "list[CommandReply]") -> None:
    typer.echo(f"sent {event.type.value} as {control_id}")
    if not answers:
        return
    rows = [
        (
            answer.worker,
            "yes" if answer.done else "no",
            _number(answer.after_ms),
            _number(answer.duration_ms),
            answer.reason if answer.after_ms is not None else "no answer",
        )
        for answer in answers
    ]
    print_table(("worker", "done", *right("after ms", "took ms"), Column("why not", text=True)), rows)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
