"""`signal-worker gateway`: the shipped gateway as a process, with a broker on paper or at Alpaca.

Exit codes: 1 the fills cannot be used, 2 no broker was named.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import DataDir, ExitCode, Json, Namespace, print_json, redis_url_of, refuse, settings_of
from worker.cli._tables import Column, print_line, print_table, right
from worker.client.inbox import Disposition

if TYPE_CHECKING:
    from worker.client import Gateway, GatewayOptions, SignalClient
    from worker.operations.paper_trading import Fill, PaperDesk
    from worker.settings import Settings

#: What a vector is tried again after.
_STUCK = frozenset({Disposition.FAILED, Disposition.BUSY, Disposition.FENCED})
#: Age of the snapshot's last session from which its bars count as historical.
HISTORICAL = timedelta(days=7)


def gateway(
    name: Annotated[str, typer.Option(help="Of the gateway: its consumer group, its inbox and its books.")] = "paper",
    equity: Annotated[float, typer.Option(min=1, help="Capital of one leg, in the prices' currency.")] = 100_000.0,
    strategy: Annotated[str | None, typer.Option(help="Strategies that it follows, apart by commas; all.")] = None,
    producer: Annotated[str | None, typer.Option(help="Producers that it follows, apart by commas; all.")] = None,
    universe: Annotated[
        str | None, typer.Option(help="Universes that it follows: model, or digests, apart by commas; all.")
    ] = None,
    from_id: Annotated[str, typer.Option(help="Where a new gateway begins: 0, $ or an entry id of the results.")] = "0",
    consumer: Annotated[str, typer.Option(help="Name of this process in the gateway.")] = "gateway",
    namespace: Namespace = None,
    data_dir: DataDir = None,
    *,
    paper: Annotated[bool, typer.Option("--paper", help="Fill orders on paper, at the snapshot's prices.")] = False,
    replay_clock: Annotated[
        bool | None,
        typer.Option(
            "--replay-clock/--server-clock",
            help="Judge validity as of each vector's session, or now; default: replay on historical bars.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Apply what is there, show it, and end; wait for the first vector.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, max=3600, help="With --once: seconds to wait for it.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Apply vectors to a book, each once and the newest last, until SIGTERM; --paper fills them on paper.

    Fills are Parquet files in data/paper/<namespace>/<name>; a restart continues from them. Orders are sized at the
    last close up to the as-of session and filled at the next session's, or at the last close there is.

    JSON: with --once: taken (disposition to count), fills, positions.

    Example: signal-worker gateway --paper --equity 100000 --once
    """
    from worker.client import GatewayOptions, SignalClient
    from worker.runtime import configure_logs

    if not paper:
        refuse("gateway takes --paper: orders are filled on paper, and nothing is sent to a broker")
    if as_json and not once:
        refuse("--json goes with --once: a gateway that runs on logs what it does")
    settings = settings_of(namespace=namespace, data_dir=data_dir)
    if not once:
        configure_logs(settings.log_level, settings.log_format)
    try:
        options = GatewayOptions(
            consumer=consumer,
            from_id=from_id,
            strategies=_names(strategy),
            producers=_names(producer),
            universes=_names(universe),
            block_ms=200 if once else 2000,
        )
    except ValueError as error:
        refuse(error)
    with ExitStack() as stack:
        if once:
            stack.enter_context(_warnings_alone())
        client = stack.enter_context(SignalClient(redis_url_of(settings), namespace=settings.namespace))
        desk = _desk(settings, name, equity, stack)
        made = _made(client, desk, name, options, replay=replay_clock)
        stack.callback(made[0].close)
        _run(made, desk, timeout=timeout if once else None, as_json=as_json)


@contextmanager
def _warnings_alone() -> Iterator[None]:
    """Log nothing below a warning: what is shown at the end has it all."""
    import structlog

    before = structlog.get_config()
    structlog.configure(**{**before, "wrapper_class": structlog.make_filtering_bound_logger(logging.WARNING)})
    try:
        yield
    finally:
        structlog.configure(**before)


def _desk(settings: "Settings", name: str, equity: float, stack: ExitStack) -> "PaperDesk":
    from worker.operations.paper_trading import Fills, PaperDesk

    ledger = Fills(settings.data_dir / "paper" / settings.namespace / Path(name).name)
    stack.callback(ledger.close)
    return PaperDesk(settings.data_dir, ledger, equity=equity)


def _made(
    client: "SignalClient", desk: "PaperDesk", name: str, options: "GatewayOptions", *, replay: bool | None
) -> "tuple[Gateway, threading.Event]":
    from strategies.errors import DataError
    from worker.client import broker_gateway
    from worker.operations.paper_trading import ReplayClock

    stop = threading.Event()
    try:
        historical = datetime.now(UTC) - desk.calendar.close_instant(desk.last_session) > HISTORICAL
    except DataError as error:
        refuse(error, code=ExitCode.NOT_FOUND)
    if historical if replay is None else replay:
        options = replace(options, clock=ReplayClock(desk.calendar))
        note = f"replay clock: the bars end on {desk.last_session}, so vectors are traded as of their own sessions"
        typer.echo(f"signal-worker: {note}", err=True)
    try:
        made = broker_gateway(client, desk, name=name, options=options, stop=stop)
    except ValueError as error:
        refuse(error)
    return made, stop


def _run(
    running: "tuple[Gateway, threading.Event]", desk: "PaperDesk", *, timeout: float | None, as_json: bool
) -> None:
    made, stop = running
    if timeout is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        made.run()
        return
    deadline = time.monotonic() + timeout
    while not (now := made.run_once()) and time.monotonic() < deadline:
        pass
    while now and not _STUCK.issuperset(now):
        now = made.run_once()
    taken = {disposition.value: count for disposition, count in made.counts.items()}
    if as_json:
        print_json({"taken": taken, "fills": desk.fills, "positions": desk.books()})
    else:
        _show(taken, desk.fills)
    if now:
        refuse(f"not applied: {', '.join(one.value for one in now)}; the log has the reason", code=ExitCode.FAILED)


def _show(taken: dict[str, int], fills: "Sequence[Fill]") -> None:
    counts = ", ".join(f"{count} {name}" for name, count in taken.items())
    print_line(f"vectors taken: {counts or 'none'}")
    if not fills:
        return
    rows: list[Sequence[Any]] = [
        (fill.strategy, fill.symbol, f"{fill.quantity:+}", f"{fill.price:.2f}", fill.session, str(fill.position))
        for fill in fills
    ]
    columns: list[Column | str] = ["strategy", "symbol", *right("shares", "price"), "close of", *right("position")]
    print_table(columns, rows, title="orders filled on paper")


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(part.strip() for part in text.split(",") if part.strip())
