"""Weights to orders, as an example of what a gateway's callback does.

Owns: the arithmetic from target weights to whole shares.
Must not know: brokers, streams, where prices come from.
Invariant: nothing is guessed: a symbol whose order cannot be computed is refused by name, with the reason, and its
position is left as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from contracts import SignalVector
from worker.client.gateway import Application, order_key, targets_of

#: Part of a share forgiven when rounding towards zero, so that a third of 30,000 buys 100 shares at 100, not 99.
_FORGIVEN = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One market order."""

    symbol: str
    #: Shares: bought if positive, sold if negative; never 0.
    quantity: int
    #: Shares held once it is filled.
    target: int
    #: Idempotency key: the same for the same request and symbol.
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOrder:
    """A symbol for which no order could be computed."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlan:
    """What to tell the broker."""

    #: Sales before purchases, each by symbol: sales free the cash that purchases need.
    orders: tuple[Order, ...]
    #: By symbol.
    refused: tuple[RefusedOrder, ...]


def weights_to_orders(
    vector: SignalVector, equity: float, prices: Mapping[str, float], positions: Mapping[str, int]
) -> OrderPlan:
    """Return the orders that turn the positions into the vector's weights.

    Args:
        vector: Replaces the whole book: a position in a symbol that it does not name is closed.
        equity: Capital of one leg, in the prices' currency: a weight of 1 means all of it, long and short apart.
        prices: Price of one share by symbol. Needed for what is to be held, not for what is closed.
        positions: Whole shares held by symbol, negative where short; of this strategy's book alone.

    Returns:
        Whole shares, rounded towards zero, so that no weight is exceeded.

    Raises:
        ValueError: The equity is not a positive number.
    """
    return orders_of(targets_of(vector, positions.keys()), vector.request_id, equity, prices, positions)


def application_orders(
    application: Application, equity: float, prices: Mapping[str, float], positions: Mapping[str, int]
) -> OrderPlan:
    """Return the orders of an application: as `weights_to_orders`, for its targets and what is held beside them."""
    targets = {**dict.fromkeys(positions, 0.0), **application.targets}
    return orders_of(targets, application.vector.request_id, equity, prices, positions)


def orders_of(
    targets: Mapping[str, float],
    request_id: str,
    equity: float,
    prices: Mapping[str, float],
    positions: Mapping[str, int],
) -> OrderPlan:
    """Return the orders that turn the positions into the targets; see `weights_to_orders`."""
    if not (math.isfinite(equity) and equity > 0):
        raise ValueError(f"equity was {equity}, must be a positive number")
    orders, refused = [], []
    for symbol in sorted(targets):
        shares = _shares(targets[symbol], equity, prices.get(symbol))
        if isinstance(shares, str):
            refused.append(RefusedOrder(symbol=symbol, reason=shares))
        elif quantity := shares - positions.get(symbol, 0):
            orders.append(Order(symbol=symbol, quantity=quantity, target=shares, key=order_key(request_id, symbol)))
    return OrderPlan(orders=tuple(sorted(orders, key=lambda order: order.quantity > 0)), refused=tuple(refused))


def _shares(weight: float, equity: float, price: float | None) -> int | str:
    """Return whole shares, or why there is no number."""
    if weight == 0:
        return 0
    if price is None:
        return "no price"
    if not (math.isfinite(price) and price > 0):
        return f"the price was {price}, must be a positive number"
    exact = weight * equity / price
    if not math.isfinite(exact):
        return f"the price was {price}, which buys no countable number of shares"
    return int(math.copysign(math.floor(abs(exact) + _FORGIVEN), exact))
