"""What a gateway needs of a broker, and the gateway that trades through one.

Owns: the protocol of a broker, and the callback that brings a broker's book to a vector's targets.
Must not know: streams, the inbox, which broker it is.
Invariant: a broker places one order a key, however often it is asked to; an order that names another in `after` is
placed once that one is filled.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from worker.client.gateway import Application, Gateway, GatewayOptions
from worker.client.orders import Number, Order, OrderPlan, OrderRules, application_orders
from worker.client.synchronous import SignalClient

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What orders are computed from, read at one moment."""

    #: Capital of one leg, in the prices' currency.
    equity: Number
    #: Price of one share by symbol; a symbol without one is refused by name.
    prices: Mapping[str, Number]
    #: Shares held by symbol, negative where short; of this strategy's book alone.
    positions: Mapping[str, Number]


class Broker(Protocol):
    """Takes orders, and states what they are computed from; whatever it raises has the application tried again."""

    def account(self, application: Application) -> Account:
        """Begin an application, and return what its orders are computed from."""

    def place(self, order: Order) -> None:
        """Place an order, or do nothing where one of its key was placed; return once the broker has accepted it."""

    def applied(self, application: Application, plan: OrderPlan) -> None:
        """Take note that all orders of an application are placed; called before that is recorded."""


def broker_gateway(
    client: SignalClient,
    broker: Broker,
    *,
    name: str,
    rules: OrderRules | None = None,
    options: GatewayOptions | None = None,
    stop: threading.Event | None = None,
) -> Gateway:
    """Return a gateway that turns each vector into orders of a broker.

    Args:
        client: Names the server.
        broker: Takes the orders.
        name: Of the gateway.
        rules: What the broker accepts and the desk allows.
        options: How it reads and remembers.
        stop: Ends `run` after the current vector.
    """

    def apply(application: Application) -> None:
        account = broker.account(application)
        plan = application_orders(application, account.equity, account.prices, account.positions, rules)
        for refused in plan.refused:
            _log.warning("order_refused", symbol=refused.symbol, reason=refused.reason)
        for limited in plan.limited:
            _log.warning("order_limited", symbol=limited.symbol, wanted=str(limited.wanted), reason=limited.reason)
        for order in plan.orders:
            broker.place(order)
        broker.applied(application, plan)

    return Gateway(client, name, apply, options=options, stop=stop)
