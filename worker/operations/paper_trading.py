"""Trading on paper with the bars of a snapshot: positions, prices and fills of one gateway.

Owns: the fills as Parquet files, positions as their sum, the price of a fill, the replay clock.
Must not know: streams, the inbox, how fills are shown.
Invariant: positions are what the files state and nothing else, so that a restart continues where the last fill was
written; the fills of one application appear together or not at all.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import structlog
from pyarrow import parquet

from contracts import SignalVector
from strategies.files import sync, write_synced
from strategies.market.bars import Panel
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from worker.client import Account, Application, Order, OrderPlan
from worker.client.orders import Number
from worker.embedded.files import take_lock
from worker.errors import WorkerError

_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "request_id": pa.string(),
        "strategy": pa.string(),
        "model_version": pa.string(),
        "symbol": pa.string(),
        "quantity": pa.string(),
        "price": pa.float64(),
        "position": pa.string(),
        "as_of": pa.date32(),
        "session": pa.date32(),
        "filled_at": pa.timestamp("ms", tz="UTC"),
    }
)
_log = structlog.get_logger()


class PaperUnusable(WorkerError):
    """Fills that cannot be read or written, or that another process is writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One order, filled whole."""

    #: Idempotency key of the order.
    key: str
    request_id: str
    strategy: str
    model_version: str
    symbol: str
    #: Shares, bought if positive.
    quantity: Decimal
    #: Of one share, as the snapshot has it: adjusted.
    price: float
    #: Shares held afterwards.
    position: Decimal
    #: Of the vector.
    as_of: date
    #: Whose close the price is.
    session: date
    #: By this machine's clock.
    filled_at: datetime


class Fills:
    """The fills of one gateway, below a folder of its own; one process writes them."""

    def __init__(self, folder: Path) -> None:
        """Take the folder and its lock.

        Raises:
            PaperUnusable: Another process has it, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(folder / ".lock")
        except OSError as error:
            raise PaperUnusable(f"{folder} cannot be written: {error.strerror}") from error
        if lock is None:
            raise PaperUnusable(f"another process trades with the fills in {folder}")
        self._folder, self._lock = folder, lock

    def close(self) -> None:
        """Let another process write."""
        self._lock.release()

    def read(self) -> list[Fill]:
        """Return every fill, the oldest first.

        Raises:
            PaperUnusable: A file is no file of fills.
        """
        return [fill for path in self._paths() for fill in self._of(path)]

    def add(self, fills: list[Fill]) -> None:
        """Write the fills of one application.

        Raises:
            PaperUnusable: They cannot be written.
        """
        if not fills:
            return
        rows = [asdict(fill) | {"quantity": str(fill.quantity), "position": str(fill.position)} for fill in fills]
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
        path = self._folder / f"{len(self._paths()) + 1:06d}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            write_synced(temporary, sink.getvalue().to_pybytes())
            temporary.rename(path)
            sync(self._folder)
        except OSError as error:
            raise PaperUnusable(f"{path} cannot be written: {error.strerror}") from error

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.parquet"))

    def _of(self, path: Path) -> Iterator[Fill]:
        names = [field.name for field in fields(Fill)]
        try:
            rows = parquet.read_table(path, columns=names).to_pylist()
            for row in rows:
                numbers = {name: Decimal(row[name]) for name in ("quantity", "position")}
                yield Fill(**{**row, **numbers})
        except (OSError, ValueError, ArithmeticError, TypeError, KeyError) as error:
            raise PaperUnusable(f"{path} holds no fills: {error}") from error


class ReplayClock:
    """The time at which historical vectors are traded: the close of the newest as-of session so far."""

    def __init__(self, calendar: SessionCalendar) -> None:
        """Start before every vector."""
        self._calendar, self._now = calendar, datetime.min.replace(tzinfo=UTC)

    def __call__(self, vector: SignalVector) -> datetime:
        """Return the time once a vector has come: it never goes back."""
        self._now = max(self._now, self._calendar.close_instant(vector.as_of))
        return self._now


class PaperDesk:
    """A broker on paper: a market order is filled at the close of the session after the as-of session.

    Where the snapshot ends before that session, it is filled at the last close that the snapshot has.
    """

    def __init__(self, data_dir: Path, ledger: Fills, *, equity: Number) -> None:
        """Read what was filled before; `equity` is the capital of one leg, in the prices' currency.

        Raises:
            PaperUnusable: The fills cannot be read.
        """
        self._data_dir, self._ledger, self._equity = data_dir, ledger, equity
        self._panel: Panel | None = None
        self._calendar: SessionCalendar | None = None
        self._books: dict[str, dict[str, Decimal]] = defaultdict(dict)
        self._known: set[str] = set()
        self._application: Application | None = None
        self._fresh: list[Fill] = []
        #: Of this process, in the order of filling.
        self.fills: list[Fill] = []
        for fill in ledger.read():
            self._book(fill)

    @property
    def calendar(self) -> SessionCalendar:
        """Return the snapshot's calendar."""
        self._bars()
        assert self._calendar is not None  # noqa: S101 - read together with the bars
        return self._calendar

    @property
    def last_session(self) -> date:
        """Return the last session of the latest snapshot."""
        day: date = self._bars().sessions[-1].astype(object)
        return day

    def books(self) -> dict[str, dict[str, Decimal]]:
        """Return the shares held by strategy and symbol."""
        return {strategy: dict(book) for strategy, book in self._books.items() if book}

    def account(self, application: Application) -> Account:
        """Return what is known when an application is decided: the last closes up to its as-of session."""
        self._application, self._fresh = application, []
        self._bars(look=True)
        held = dict(self._books[application.vector.strategy])
        closes = {symbol: self._close(symbol, application.vector.as_of) for symbol in {*application.targets, *held}}
        prices = {symbol: close[0] for symbol, close in closes.items() if close is not None}
        return Account(equity=self._equity, prices=prices, positions=held)

    def place(self, order: Order) -> None:
        """Fill an order, or do nothing where its key was filled before."""
        if self._application is None or order.key in self._known or order.key in {one.key for one in self._fresh}:
            return
        vector = self._application.vector
        price = self._fill_price(order.symbol, vector.as_of)
        if price is None:
            raise WorkerError(f"{order.symbol} has no close from {vector.as_of} on or before")
        self._fresh.append(
            Fill(
                key=order.key,
                request_id=vector.request_id,
                strategy=vector.strategy,
                model_version=vector.model_version,
                symbol=order.symbol,
                quantity=order.quantity,
                price=price[0],
                position=order.target,
                as_of=vector.as_of,
                session=price[1],
                filled_at=datetime.now(UTC),
            )
        )

    def applied(self, _application: Application, _plan: OrderPlan) -> None:
        """Write what was filled; only then it is held."""
        self._ledger.add(self._fresh)
        for fill in self._fresh:
            self._book(fill)
            _log.info(
                "order_filled",
                request_id=fill.request_id,
                symbol=fill.symbol,
                quantity=str(fill.quantity),
                price=fill.price,
                session=fill.session.isoformat(),
                position=str(fill.position),
            )
        self.fills += self._fresh
        self._fresh = []

    def _book(self, fill: Fill) -> None:
        self._known.add(fill.key)
        book = self._books[fill.strategy]
        held = book.get(fill.symbol, Decimal(0)) + fill.quantity
        book[fill.symbol] = held
        if not held:
            del book[fill.symbol]

    def _fill_price(self, symbol: str, as_of: date) -> tuple[float, date] | None:
        panel = self._bars()
        column = int(np.searchsorted(panel.sessions, np.datetime64(as_of), side="right"))
        row = panel.index.get(symbol)
        if row is not None and column < len(panel.sessions):
            price = float(panel.fields["close"][row, column])
            if np.isfinite(price):
                return price, panel.sessions[column].astype(object)
        return self._close(symbol, as_of)

    def _close(self, symbol: str, as_of: date) -> tuple[float, date] | None:
        """Return the last close of a symbol up to a session, and whose it is."""
        panel = self._bars()
        row = panel.index.get(symbol)
        if row is None:
            return None
        end = int(np.searchsorted(panel.sessions, np.datetime64(as_of), side="right"))
        known = np.flatnonzero(np.isfinite(panel.fields["close"][row, :end]))
        if not len(known):
            return None
        return float(panel.fields["close"][row, known[-1]]), panel.sessions[known[-1]].astype(object)

    def _bars(self, *, look: bool = False) -> Panel:
        """Return the bars of the latest snapshot, as it was when an application last began."""
        if self._panel is not None and not look:
            return self._panel
        latest = latest_snapshot(self._data_dir)
        if self._panel is None or self._panel.snapshot_id != latest.id:
            self._calendar = latest.open_calendar()
            self._panel = load_panel(latest, self._calendar)
        return self._panel
