"""Alpaca as a broker: its trading API over HTTPS, the paper endpoint by default.

Owns: what is asked of the API, what its answers mean for an order, when an order is tried again.
Must not know: streams, vectors, the inbox.
Invariant: an order's key is its `client_order_id`, which Alpaca takes once: a lost reply costs no second order.
A secret is in a header of a request and nowhere else.

Source: https://docs.alpaca.markets/reference (Trading API v2, Market Data API v2).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import structlog

from worker.client.brokers import Account
from worker.client.gateway import Application
from worker.client.orders import Order, OrderPlan
from worker.errors import WorkerError

if TYPE_CHECKING:
    import httpx

PAPER_URL = "https://paper-api.alpaca.markets"
DATA_URL = "https://data.alpaca.markets"
#: Symbols in one question for prices.
SYMBOLS_AT_ONCE = 100
#: Open orders in one answer, Alpaca's most.
ORDERS_AT_ONCE = 500
#: Pause between two looks at an order that must be filled first, in seconds.
LOOK_SECONDS = 0.5
#: States in which an order will never be filled, or not any further.
_DEAD = frozenset({"canceled", "expired", "rejected", "suspended"})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_UNPROCESSABLE, _FORBIDDEN, _NOT_FOUND = 422, 403, 404

_log = structlog.get_logger()


class AlpacaUnavailable(WorkerError):
    """Alpaca cannot be reached, refuses the keys, limits the rate or fails; the application is tried again."""


class OrdersRefused(WorkerError):
    """Orders that Alpaca did not take; the others of the application were placed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlpacaOptions:
    """Which account, and how it is used.

    Raises:
        ValueError: A URL that is not HTTPS, or a live account where it was not asked for.
    """

    key_id: str
    secret_key: str
    url: str = PAPER_URL
    data_url: str = DATA_URL
    #: Source of prices: `iex` for every account, `sip` for those who pay for it.
    feed: str = "iex"
    #: Whether the URL may be another than the paper endpoint, so that orders are for real money.
    live: bool = False
    #: Capital of one leg, in dollars; None = half of the account's equity.
    equity: Decimal | None = None
    #: Longest wait for one answer, and for an order that must be filled before another one is placed.
    timeout_seconds: float = 10.0
    fill_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check where orders go before any is sent."""
        for name, url in (("url", self.url), ("data_url", self.data_url)):
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ValueError(f"{name} was {url!r}, must be https: the keys go with every request")
        paper = urlsplit(self.url).hostname in {urlsplit(PAPER_URL).hostname, *_LOOPBACK}
        if not paper and not self.live:
            raise ValueError(f"url was {self.url!r}, not the paper endpoint: state live=True to trade real money there")
        if not self.key_id or not self.secret_key:
            raise ValueError("key_id and secret_key are both needed")

    def __repr__(self) -> str:
        """Return the options without the secret."""
        return f"AlpacaOptions(url={self.url!r}, key_id={self.key_id!r}, live={self.live})"


class AlpacaBroker:
    """One account at Alpaca: its positions are the book of one strategy, so give a gateway an account of its own."""

    def __init__(self, options: AlpacaOptions) -> None:
        """Connect on first use.

        Raises:
            AlpacaUnavailable: The package httpx is not installed.
        """
        try:
            import httpx  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise AlpacaUnavailable("httpx is not installed: pip install 'signal-worker[alpaca]'") from error
        headers = {"APCA-API-KEY-ID": options.key_id, "APCA-API-SECRET-KEY": options.secret_key}
        self._options, self._failures = options, httpx.HTTPError
        self._http = httpx.Client(headers=headers, timeout=options.timeout_seconds, trust_env=False)
        #: Orders of the application that Alpaca refused: symbol to why.
        self._refused: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Return this broker."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def account(self, application: Application) -> Account:
        """Return equity, latest prices and positions; what open orders will still fill counts as held.

        Raises:
            AlpacaUnavailable: It cannot be asked now, or the account may not trade.
        """
        self._refused = {}
        account = self._get("/v2/account")
        if account.get("trading_blocked") or account.get("account_blocked"):
            raise AlpacaUnavailable(f"the account is blocked, its status is {account.get('status')}")
        positions = self._positions()
        equity = self._options.equity or _number("equity", account.get("equity")) / 2
        return Account(equity=equity, prices=self._prices({*application.targets, *positions}), positions=positions)

    def place(self, order: Order) -> None:
        """Place a market order for the day; one that must follow another is placed once that one is filled.

        An order that Alpaca refuses is remembered, so that the others are placed; see `applied`.

        Raises:
            AlpacaUnavailable: It is not known to have been accepted, or the order before it is not filled yet.
        """
        if order.after is not None:
            self._await_filled(order.after)
        body = {
            "symbol": order.symbol,
            "qty": format(abs(order.quantity), "f"),
            "side": "buy" if order.quantity > 0 else "sell",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": order.key,
        }
        reply = self._send("POST", self._options.url, "/v2/orders", json=body)
        if reply.is_success:
            placed = reply.json()
        elif reply.status_code in {_FORBIDDEN, _UNPROCESSABLE}:
            placed = self._placed_before(order.key)
            if placed is None:
                self._refuse(order, _message(reply))
                return
        else:
            raise AlpacaUnavailable(f"the order for {order.symbol} got {reply.status_code}: {_message(reply)}")
        if placed.get("status") in _DEAD:
            self._refuse(order, f"order {placed.get('id')} is {placed['status']}")
            return
        _log.info("order_placed", symbol=order.symbol, quantity=str(order.quantity), order=placed.get("id"))

    def applied(self, application: Application, _plan: OrderPlan) -> None:
        """Raise where an order was refused, so that the application is tried again until it expires.

        Raises:
            OrdersRefused: Names each symbol, and why.
        """
        if self._refused:
            why = "; ".join(f"{symbol}: {reason}" for symbol, reason in self._refused.items())
            raise OrdersRefused(f"request {application.vector.request_id}: {why}")

    def _refuse(self, order: Order, reason: str) -> None:
        self._refused[order.symbol] = reason
        _log.error("order_refused", symbol=order.symbol, quantity=str(order.quantity), reason=reason)

    def _positions(self) -> dict[str, Decimal]:
        held = {str(one["symbol"]): _number("qty", one.get("qty")) for one in self._get("/v2/positions")}
        for order in self._open_orders():
            left = _number("qty", order.get("qty")) - _number("filled_qty", order.get("filled_qty") or 0)
            symbol = str(order["symbol"])
            held[symbol] = held.get(symbol, Decimal(0)) + (left if order.get("side") == "buy" else -left)
        return {symbol: shares for symbol, shares in held.items() if shares}

    def _open_orders(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self._get("/v2/orders", status="open", limit=str(ORDERS_AT_ONCE))
        if len(found) >= ORDERS_AT_ONCE:
            raise AlpacaUnavailable(
                f"{len(found)} orders are open, more than one answer has: what is held is not known"
            )
        return found

    def _prices(self, symbols: set[str]) -> dict[str, Decimal]:
        prices: dict[str, Decimal] = {}
        for some in _batches(sorted(symbols)):
            asked = {"symbols": ",".join(some), "feed": self._options.feed}
            trades = self._get("/v2/stocks/trades/latest", base=self._options.data_url, **asked).get("trades") or {}
            prices |= {symbol: _number("the price", trade.get("p")) for symbol, trade in trades.items()}
        return prices

    def _await_filled(self, key: str) -> None:
        deadline = time.monotonic() + self._options.fill_seconds
        while True:
            order = self._placed_before(key)
            status = order.get("status") if order else "unknown"
            if status == "filled":
                return
            if status in _DEAD or order is None or time.monotonic() >= deadline:
                raise AlpacaUnavailable(f"the order that must be filled first ({key}) is {status}")
            time.sleep(LOOK_SECONDS)

    def _placed_before(self, key: str) -> Mapping[str, Any] | None:
        """Return the order of a key; None where Alpaca has none."""
        path = "/v2/orders:by_client_order_id"
        reply = self._send("GET", self._options.url, path, params={"client_order_id": key})
        if reply.status_code == _NOT_FOUND:
            return None
        found: Mapping[str, Any] = self._answer(reply, path)
        return found

    def _get(self, path: str, *, base: str | None = None, **asked: str) -> Any:  # noqa: ANN401 - JSON
        return self._answer(self._send("GET", base or self._options.url, path, params=asked), path)

    def _answer(self, reply: "httpx.Response", path: str) -> Any:  # noqa: ANN401 - JSON
        if not reply.is_success:
            raise AlpacaUnavailable(f"{path} got {reply.status_code}: {_message(reply)}")
        try:
            return reply.json()
        except ValueError as error:
            raise AlpacaUnavailable(f"{path} did not answer in JSON") from error

    def _send(self, method: str, base: str, path: str, **options: Any) -> "httpx.Response":  # noqa: ANN401 - as httpx has it
        try:
            return self._http.request(method, base.rstrip("/") + path, **options)
        except self._failures as error:
            raise AlpacaUnavailable(f"{path} was not answered: {type(error).__name__}") from error


def _message(reply: "httpx.Response") -> str:
    try:
        message = reply.json().get("message", "")
    except (ValueError, AttributeError):
        message = reply.text
    return str(message)[:200]


def _number(name: str, value: object) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise AlpacaUnavailable(f"{name} was {value!r}, no number") from error
    if not number.is_finite():
        raise AlpacaUnavailable(f"{name} was {value!r}, no number")
    return number


def _batches(symbols: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(symbols), SYMBOLS_AT_ONCE):
        yield symbols[start : start + SYMBOLS_AT_ONCE]
