"""A gateway that trades on paper: the example to start a real one from.

Owns: a broker in memory that fills at once.
Must not know: streams, the inbox.
Invariant: an order key is filled once, however often it is placed; a broker for real money must promise the same.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal

from worker.client.brokers import Account, broker_gateway
from worker.client.gateway import Application, Gateway, GatewayOptions
from worker.client.orders import Number, Order, OrderPlan, OrderRules
from worker.client.synchronous import SignalClient


class PaperBroker:
    """Fills every market order at once, each key once."""

    def __init__(self, positions: Mapping[str, int | Decimal] | None = None) -> None:
        """Start with these shares."""
        self.positions: dict[str, Decimal] = {symbol: Decimal(held) for symbol, held in (positions or {}).items()}
        #: By key, in the order of filling.
        self.filled: dict[str, Order] = {}

    def place(self, order: Order) -> None:
        """Fill an order, or do nothing where its key was filled before."""
        if order.key in self.filled:
            return
        self.filled[order.key] = order
        held = self.positions.get(order.symbol, Decimal(0)) + order.quantity
        self.positions[order.symbol] = held
        if not held:
            del self.positions[order.symbol]


def paper_gateway(
    client: SignalClient,
    broker: PaperBroker,
    *,
    equity: Number,
    prices: Callable[[], Mapping[str, Number]],
    name: str = "paper",
    rules: OrderRules | None = None,
    options: GatewayOptions | None = None,
) -> Gateway:
    """Return a gateway that turns each vector into orders of the broker.

    Args:
        client: Names the server.
        broker: Takes the orders.
        equity: Capital of one leg, in the prices' currency.
        prices: Asked for the prices of one share by symbol, at each application.
        name: Of the gateway.
        rules: What the broker accepts and the desk allows.
        options: How it reads and remembers.
    """
    book = _PaperBook(broker, equity, prices)
    return broker_gateway(client, book, name=name, rules=rules, options=options)


class _PaperBook:
    """A broker in memory as a gateway needs one."""

    def __init__(self, broker: PaperBroker, equity: Number, prices: Callable[[], Mapping[str, Number]]) -> None:
        self._broker, self._equity, self._prices = broker, equity, prices

    def account(self, _application: Application) -> Account:
        return Account(equity=self._equity, prices=self._prices(), positions=self._broker.positions)

    def place(self, order: Order) -> None:
        self._broker.place(order)

    def applied(self, _application: Application, _plan: OrderPlan) -> None:
        return
