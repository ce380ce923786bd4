"""`signal-worker gateway`: the shipped gateway as a process, with a broker on paper or at Alpaca.

Exit codes: 1 the fills cannot be used or a vector was not applied, 2 no broker was named or its settings lack.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli._common import DataDir, ExitCode, Json, Namespace, print_json, redis_url_of, refuse, settings_of
from worker.cli._tables import Column, print_line, print_table, right
from worker.client.inbox import Disposition

if TYPE_CHECKING:
    from worker.client import AlpacaBroker, Broker, Gateway
    from worker.operations.paper_trading import Fill, PaperDesk, ReplayClock
    from worker.settings import Settings

#: What a vector is tried again after.
_STUCK = frozenset({Disposition.FAILED, Disposition.BUSY, Disposition.FENCED})
#: Capital of one leg on paper.
PAPER_EQUITY = 100_000.0
#: Age of the snapshot's last session from which its bars count as historical.
HISTORICAL = timedelta(days=7)


def gateway(
    name: Annotated[str, typer.Option(help="Of the gateway: its consumer group, its inbox and its books.")] = "paper",
    equity: Annotated[
        float | None,
        typer.Option(min=1, help="Capital of one leg; 100,000 on paper, half of the account's equity at Alpaca."),
    ] = None,
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
    alpaca: Annotated[
        bool, typer.Option("--alpaca", help="Send orders to Alpaca, to its paper endpoint unless --live.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="With --alpaca: SIGNALS_ALPACA_URL may be for real money.")
    ] = False,
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
    At Alpaca the account is the book: give the gateway one of its own.

    JSON: with --once: taken (disposition to count), fills, positions.

    Example: signal-worker gateway --paper --equity 100000 --once
    """
    from worker.client import GatewayOptions, SignalClient, broker_gateway
    from worker.runtime import configure_logs

    _check(paper=paper, alpaca=alpaca, live=live, replay=replay_clock, once=once, as_json=as_json)
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
        stop = threading.Event()
        if paper:
            desk = _desk(settings, name, equity or PAPER_EQUITY, stack)
            options = replace(options, clock=_clock(desk, replay=replay_clock))
            broker: Broker = desk
        else:
            desk, broker = None, stack.enter_context(_alpaca(settings, equity, live=live))
        try:
            made = broker_gateway(client, broker, name=name, options=options, stop=stop)
        except ValueError as error:
            refuse(error)
        stack.callback(made.close)
        if once:
            _run_once(made, desk, timeout, as_json=as_json)
        else:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            made.run()


def _check(*, paper: bool, alpaca: bool, live: bool, replay: bool | None, once: bool, as_json: bool) -> None:
    """Refuse options that contradict each other."""
    if paper == alpaca:
        refuse("gateway takes --paper, which sends nothing anywhere, or --alpaca: one of them")
    if (live and paper) or (replay and alpaca):
        refuse("--live goes with --alpaca, and --replay-clock with --paper alone")
    if as_json and not once:
        refuse("--json goes with --once: a gateway that runs on logs what it does")


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


def _clock(desk: "PaperDesk", *, replay: bool | None) -> "ReplayClock | None":
    """Return the clock of a replay, or None for the server's."""
    from strategies.errors import DataError
    from worker.operations.paper_trading import ReplayClock

    try:
        historical = datetime.now(UTC) - desk.calendar.close_instant(desk.last_session) > HISTORICAL
    except DataError as error:
        refuse(error, code=ExitCode.NOT_FOUND)
    if not (historical if replay is None else replay):
        return None
    note = f"replay clock: the bars end on {desk.last_session}, so vectors are traded as of their own sessions"
    typer.echo(f"signal-worker: {note}", err=True)
    return ReplayClock(desk.calendar)


def _alpaca(settings: "Settings", equity: float | None, *, live: bool) -> "AlpacaBroker":
    from worker.client import AlpacaBroker, AlpacaOptions

    key, secret = settings.alpaca_key_id, settings.alpaca_secret_key
    if not key or secret is None:
        refuse("SIGNALS_ALPACA_KEY_ID and SIGNALS_ALPACA_SECRET_KEY are not set: Alpaca's pages have both")
    try:
        options = AlpacaOptions(
            key_id=key,
            secret_key=secret.get_secret_value(),
            url=settings.alpaca_url,
            data_url=settings.alpaca_data_url,
            live=live,
            equity=None if equity is None else Decimal(str(equity)),
        )
    except ValueError as error:
        refuse(error)
    return AlpacaBroker(options)


def _run_once(made: "Gateway", desk: "PaperDesk | None", timeout: float, *, as_json: bool) -> None:
    deadline = time.monotonic() + timeout
    while not (now := made.run_once()) and time.monotonic() < deadline:
        pass
    while now and not _STUCK.issuperset(now):
        now = made.run_once()
    taken = {disposition.value: count for disposition, count in made.counts.items()}
    if as_json:
        print_json({"taken": taken, "fills": desk.fills if desk else [], "positions": desk.books() if desk else {}})
    else:
        _show(taken, desk.fills if desk else [])
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
