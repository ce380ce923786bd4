"""A stand-in for Alpaca: its documented trading and market data API on loopback, for one account.

Owns: the account, its positions and orders, what may be refused, and what the next answers do wrong.
Must not know: gateways, vectors.
Invariant: it answers as the documentation states: paths, fields as text, error codes, one order a `client_order_id`.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

KEY, SECRET = "PK" + uuid4().hex[:18].upper(), uuid4().hex


class StandIn:
    """One account; every attribute may be changed by a test."""

    def __init__(self) -> None:
        self.equity = "200000"
        self.blocked = False
        self.prices: dict[str, float] = {"AAPL": 100.0, "MSFT": 50.0}
        self.positions: dict[str, Decimal] = {}
        #: By `client_order_id`, in the order of arrival.
        self.orders: dict[str, dict[str, Any]] = {}
        #: Symbols that are refused, and why.
        self.refused: dict[str, str] = {}
        #: Whether orders are filled at once; else they stay `accepted`, as outside of trading hours.
        self.open_market = True
        #: Status of each next answer to `POST /v2/orders`; 0: the order is taken and the connection cut.
        self.troubles: list[int] = []
        self.requests: list[str] = []
        self.url = ""

    def fill(self, key: str) -> None:
        """Fill an order."""
        order = self.orders[key]
        signed = Decimal(order["qty"]) * (1 if order["side"] == "buy" else -1)
        held = self.positions.pop(order["symbol"], Decimal(0)) + signed
        if held:
            self.positions[order["symbol"]] = held
        order |= {"status": "filled", "filled_qty": order["qty"]}

    def answer(self, method: str, path: str, asked: dict[str, str], body: dict[str, Any]) -> tuple[int, object]:
        """Return status and document."""
        if method == "POST" and path == "/v2/orders":
            return self._order(body)
        if path == "/v2/account":
            document = {"status": "ACTIVE", "equity": self.equity, "currency": "USD", "trading_blocked": self.blocked}
            return 200, document | {"account_blocked": False, "shorting_enabled": True}
        if path == "/v2/positions":
            return 200, [
                {"symbol": symbol, "qty": str(held), "side": "long" if held > 0 else "short"}
                for symbol, held in self.positions.items()
            ]
        if path == "/v2/orders" and asked.get("status") == "open":
            return 200, [order for order in self.orders.values() if order["status"] in {"accepted", "partially_filled"}]
        if path == "/v2/orders:by_client_order_id":
            found = self.orders.get(asked["client_order_id"])
            return (200, found) if found else (404, {"code": 40410000, "message": "order not found"})
        if path == "/v2/stocks/trades/latest":
            known = {name: {"p": self.prices[name]} for name in asked["symbols"].split(",") if name in self.prices}
            return 200, {"trades": known}
        return 404, {"message": "endpoint not found"}

    def _order(self, body: dict[str, Any]) -> tuple[int, object]:
        if self.troubles and self.troubles[0]:
            return self.troubles.pop(0), {"message": "too many requests."}
        if body["client_order_id"] in self.orders:
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if body["symbol"] in self.refused:
            return 403, {"code": 40310000, "message": self.refused[body["symbol"]]}
        held = self.positions.get(body["symbol"], Decimal(0))
        signed = Decimal(body["qty"]) * (1 if body["side"] == "buy" else -1)
        if held * (held + signed) < 0:
            return 403, {"code": 40310000, "message": f"insufficient qty available for order (available: {held})"}
        order = {"id": str(uuid4()), "status": "accepted", "filled_qty": "0", **body}
        self.orders[body["client_order_id"]] = order
        if self.open_market:
            self.fill(body["client_order_id"])
        return 200, order


@contextmanager
def alpaca() -> Iterator[StandIn]:
    """Yield a stand-in that listens on loopback."""
    account = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do("GET")

        def do_POST(self) -> None:
            self._do("POST")

        def _do(self, method: str) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            account.requests.append(f"{method} {parts.path}")
            if (self.headers["APCA-API-KEY-ID"], self.headers["APCA-API-SECRET-KEY"]) != (KEY, SECRET):
                self._reply(401, {"message": "unauthorized."})
                return
            status, document = account.answer(
                method, parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}, body
            )
            if method == "POST" and account.troubles and not account.troubles[0]:
                account.troubles.pop(0)
                self.close_connection = True  # the order is taken, and its reply lost
                return
            self._reply(status, document)

        def _reply(self, status: int, document: object) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    account.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
