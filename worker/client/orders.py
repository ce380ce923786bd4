"""Weights to orders, as an example of what a gateway's callback does.

Owns: the arithmetic from target weights to quantities, in decimal numbers from end to end, and the limits of a desk.
Must not know: brokers, streams, where prices come from.
Invariant: nothing is guessed: a symbol whose order cannot be computed is refused by name, with the reason, and its
position is left as it is; every quantity is a multiple of its lot size, and no order crosses zero unless asked to.
"""

import numbers
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal, localcontext

from contracts import SignalVector
from worker.client.gateway import Application, closing_key, order_key, targets_of

#: A number as a broker's API or a price file gives it; what it must be is checked symbol by symbol.
Number = int | float | str | Decimal

#: Part of a lot forgiven when a weight becomes shares, so that a third of 30,000 buys 100 shares at 100, not 99.
_FORGIVEN = Decimal("1e-9")
#: No broker takes more of anything; larger results come from prices that are none.
_MOST_SHARES = Decimal(10) ** 15
#: Power of ten below which every usable number is.
_LARGEST = 30
#: Longest text that is read as a number.
_MOST_CHARACTERS = 64
#: Whole numbers beyond it are not even written as text.
_MOST_BITS = 100
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_PRECISION = Context(prec=60)
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRules:
    """What the broker accepts and the desk allows.

    Raises:
        ValueError: A limit is no number, or is out of its range.
    """

    #: Quantities are multiples of it: 1 for whole shares, 100 for round lots, 0.000001 for fractional shares.
    lot_size: Number = 1
    #: Lot sizes of single symbols, instead of `lot_size`.
    lot_sizes: Mapping[str, Number] = field(default_factory=dict)
    #: An order that changes a position by less, in the prices' currency, is not placed; closing one is.
    min_notional: Number = 0
    #: Symbols that may not be sold short: a negative target becomes 0.
    no_short: Collection[str] = frozenset()
    #: Whether anything may be sold short.
    allow_short: bool = True
    #: Largest absolute value of one position, in the prices' currency; None = no limit.
    max_position_notional: Number | None = None
    #: Largest sum of the absolute values of all positions; beyond it all targets shrink alike; None = no limit.
    max_gross_notional: Number | None = None
    #: Part of the equity that is never invested: 0.02 leaves 2 %.
    cash_buffer: Number = 0
    #: Whether an order from long to short, or back, becomes two: one that closes and one that opens.
    split_at_zero: bool = True

    def __post_init__(self) -> None:
        """Check every limit once, so that no order is computed with one that is none."""
        _positive("lot_size", self.lot_size)
        for symbol, lot in self.lot_sizes.items():
            _positive(f"the lot size of {symbol}", lot)
        for name in ("max_position_notional", "max_gross_notional"):
            if (limit := getattr(self, name)) is not None:
                _positive(name, limit)
        if not _number("min_notional", self.min_notional) >= 0:
            raise ValueError(f"min_notional was {self.min_notional}, must be 0 or more")
        if not 0 <= _number("cash_buffer", self.cash_buffer) < 1:
            raise ValueError(f"cash_buffer was {self.cash_buffer}, must be at least 0 and below 1")
        if isinstance(self.no_short, str):
            raise ValueError(f"no_short was the text {self.no_short!r}, must be a collection of symbols")  # noqa: TRY004

    def lot_of(self, symbol: str) -> Decimal:
        """Return the lot size of a symbol."""
        return _positive("the lot size", self.lot_sizes.get(symbol, self.lot_size))

    def may_short(self, symbol: str) -> bool:
        """Return whether a symbol may be sold short."""
        return self.allow_short and symbol not in self.no_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One market order."""

    symbol: str
    #: Shares: bought if positive, sold if negative; never 0, a multiple of the lot size.
    quantity: Decimal
    #: Shares held once it is filled.
    target: Decimal
    #: Idempotency key: the same for the same request and symbol.
    key: str
    #: Key of the order that must be filled first: that of the leg which closes, where this one opens the other side.
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedOrder:
    """A symbol for which no order could be computed; its position is left as it is."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedOrder:
    """A symbol whose position will differ from its weight by more than rounding, because of a rule."""

    symbol: str
    #: Shares that the weight asks for, rounded to the lot size.
    wanted: Decimal
    #: Shares held once all orders are filled.
    target: Decimal
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlan:
    """What to send to the broker."""

    #: Orders that reduce a position before those that build one, sales before purchases, each by symbol: the cash that
    #: purchases need comes from sales.
    orders: tuple[Order, ...]
    #: By symbol.
    refused: tuple[RefusedOrder, ...]
    #: By symbol.
    limited: tuple[LimitedOrder, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Line:
    """One symbol on its way to an order."""

    symbol: str
    position: Decimal
    lot: Decimal
    #: None where the position is only closed and no price is known.
    price: Decimal | None
    wanted: Decimal
    target: Decimal
    reasons: list[str] = field(default_factory=list)

    @property
    def builds(self) -> bool:
        """Whether a position grows, or one on the other side is opened."""
        return self.position * self.target < 0 or abs(self.target) > abs(self.position)

    def limit(self, target: Decimal, reason: str) -> None:
        self.target = target
        self.reasons.append(reason)


def weights_to_orders(
    vector: SignalVector,
    equity: Number,
    prices: Mapping[str, Number],
    positions: Mapping[str, Number],
    rules: OrderRules | None = None,
) -> OrderPlan:
    """Return the orders that turn the positions into the vector's weights.

    Args:
        vector: Replaces the whole book: a position in a symbol that it does not name is closed.
        equity: Capital of one leg, in the prices' currency: a weight of 1 means all of it, long and short apart.
        prices: Price of one share by symbol, as number, decimal or plain text. Needed for what is to be held, not for
            what is closed.
        positions: Shares held by symbol, negative where short; of this strategy's book alone. A fraction of a lot that
            is held stays held.
        rules: What the broker accepts and the desk allows; whole shares without further limits by default.

    Returns:
        Quantities in multiples of the lot size, rounded towards zero, so that no weight is exceeded. A symbol whose
        weight, price or position is no usable number is refused by name; the others are ordered.

    Raises:
        ValueError: The equity is not a positive number.
    """
    return orders_of(targets_of(vector, positions.keys()), vector.request_id, equity, prices, positions, rules)


def application_orders(
    application: Application,
    equity: Number,
    prices: Mapping[str, Number],
    positions: Mapping[str, Number],
    rules: OrderRules | None = None,
) -> OrderPlan:
    """Return the orders of an application: as `weights_to_orders`, for its targets and what is held beside them."""
    targets = {**dict.fromkeys(positions, 0.0), **application.targets}
    return orders_of(targets, application.vector.request_id, equity, prices, positions, rules)


def orders_of(
    targets: Mapping[str, Number],
    request_id: str,
    equity: Number,
    prices: Mapping[str, Number],
    positions: Mapping[str, Number],
    rules: OrderRules | None = None,
) -> OrderPlan:
    """Return the orders that turn the positions into the targets; see `weights_to_orders`.

    A position of a symbol that has no target is left alone.
    """
    rules = rules or OrderRules()
    with localcontext(_PRECISION):
        capital = _positive("equity", equity) * (1 - _number("cash_buffer", rules.cash_buffer))
        lines, refused = [], []
        for symbol in sorted(targets, key=str):
            try:
                lines.append(_line(symbol, targets[symbol], capital, prices, positions, rules))
            except ValueError as error:
                refused.append(RefusedOrder(symbol=str(symbol), reason=str(error)))
        if rules.max_gross_notional is not None:
            kept = {
                symbol: shares for symbol, shares in positions.items() if symbol not in {line.symbol for line in lines}
            }
            _limit_gross(lines, kept, prices, _positive("max_gross_notional", rules.max_gross_notional))
        orders = [order for line in lines for order in _orders(line, request_id, rules)]
    orders.sort(key=lambda order: (order.after is not None, order.quantity > 0))
    limited = [
        LimitedOrder(symbol=line.symbol, wanted=line.wanted, target=line.target, reason="; ".join(line.reasons))
        for line in lines
        if line.reasons
    ]
    return OrderPlan(orders=tuple(orders), refused=tuple(refused), limited=tuple(limited))


def _line(
    symbol: str,
    weight: Number,
    capital: Decimal,
    prices: Mapping[str, Number],
    positions: Mapping[str, Number],
    rules: OrderRules,
) -> _Line:
    """Return a symbol's position and target; raise a ValueError with the reason where a number is none."""
    if not isinstance(symbol, str):
        raise ValueError(f"the symbol was {symbol!r}, must be text")  # noqa: TRY004 - broker input, refused by value
    share = _number("the weight", weight)
    position = _number("the position", positions.get(symbol, 0))
    price = _price(symbol, prices, needed=share != 0)
    lot = rules.lot_of(symbol)
    wanted = _rounded(share * capital / price, lot, forgiven=_FORGIVEN) if share and price else _NOTHING
    for name, shares in (("the position", position), (f"the price was {price}, the target", wanted)):
        if abs(shares) > _MOST_SHARES:
            raise ValueError(f"{name} was {shares:.3E} shares, the limit is {_MOST_SHARES:.0E}")
    line = _Line(symbol=symbol, position=position, lot=lot, price=price, wanted=wanted, target=wanted)
    if wanted < 0 and not rules.may_short(symbol):
        line.limit(_NOTHING, "it may not be sold short")
    if rules.max_position_notional is not None and price is not None:
        most = _rounded(_positive("max_position_notional", rules.max_position_notional) / price, lot)
        if abs(line.target) > most:
            line.limit(most.copy_sign(line.target), f"one position is worth {rules.max_position_notional} at most")
    return line


def _limit_gross(lines: list[_Line], kept: Mapping[str, Number], prices: Mapping[str, Number], limit: Decimal) -> None:
    """Shrink all targets alike where their sum is beyond the limit; build nothing where it cannot be computed.

    Args:
        lines: What is ordered.
        kept: Positions that are left as they are, of refused symbols among others; they count too.
        prices: Price of one share by symbol.
        limit: In the prices' currency.
    """
    room = limit
    for symbol, shares in kept.items():
        try:
            if number := _number("the position", shares):
                room -= abs(number) * _positive("the price", prices.get(symbol))
        except ValueError as error:
            reason = f"the gross limit cannot be checked, {symbol} is held: {error}"
            for line in lines:
                if line.builds:
                    line.limit(line.position if line.position * line.target > 0 else _NOTHING, reason)
            return
    gross = sum((abs(line.target) * line.price for line in lines if line.price is not None), _NOTHING)
    if gross > max(room, _NOTHING):
        factor = max(room, _NOTHING) / gross
        for line in lines:
            if line.target:
                line.limit(
                    _rounded(line.target * factor, line.lot, forgiven=_FORGIVEN),
                    f"all positions are worth {limit} at most",
                )


def _orders(line: _Line, request_id: str, rules: OrderRules) -> list[Order]:
    """Return a symbol's order, two where it would cross zero, or none."""
    key = order_key(request_id, line.symbol)
    if not (rules.split_at_zero and line.position * line.target < 0):
        return _leg(line, line.position, line.target, key, rules)
    target, first = line.target, closing_key(request_id, line.symbol)
    closing = _leg(line, line.position, _NOTHING, first, rules)
    if not closing or closing[0].target:
        return closing  # a fraction of a lot stays held, so the other side cannot be opened
    return closing + _leg(line, _NOTHING, target, key, rules, after=first)


def _leg(
    line: _Line, position: Decimal, target: Decimal, key: str, rules: OrderRules, *, after: str | None = None
) -> list[Order]:
    """Return the order from a position to a target in multiples of the lot size; none below one lot."""
    quantity = _rounded(target - position, line.lot)
    worth = abs(quantity) * line.price if line.price is not None else None
    if target and quantity and worth is not None and worth < _number("min_notional", rules.min_notional):
        line.limit(position, f"the order is worth {worth:f}, the least is {rules.min_notional}")
        return []
    if position + quantity != target:
        line.limit(position + quantity, f"{position:f} shares are held, no multiple of the lot size {line.lot:f}")
    return (
        [Order(symbol=line.symbol, quantity=quantity, target=position + quantity, key=key, after=after)]
        if quantity
        else []
    )


def _rounded(shares: Decimal, lot: Decimal, *, forgiven: Decimal = _NOTHING) -> Decimal:
    """Return the multiple of a lot next to a number of shares, towards zero."""
    lots = (abs(shares) / lot + forgiven).to_integral_value(rounding=ROUND_FLOOR)
    return (lots * lot).copy_sign(shares) if lots else _NOTHING


def _price(symbol: str, prices: Mapping[str, Number], *, needed: bool) -> Decimal | None:
    """Return a symbol's price; None where none is needed and none can be used."""
    price = prices.get(symbol)
    if price is None and needed:
        raise ValueError("no price")
    try:
        return _positive("the price", price)
    except ValueError:
        if needed:
            raise
        return None


def _positive(name: str, value: object) -> Decimal:
    number = _number(name, value, "must be a positive number")
    if number <= 0:
        raise ValueError(f"{name} was {number}, must be a positive number")
    return number


def _number(name: str, value: object, rule: str = "must be a number") -> Decimal:
    """Return what a broker or a file gives as a number, exactly as it is written.

    A float is read by its shortest text (0.1 is a tenth); text is plain: no blanks, separators or words.

    Raises:
        ValueError: It is no number, or one beyond all bounds.
    """
    text = value if isinstance(value, str) else str(value) if _numeric(value) else ""
    if len(text) > _MOST_CHARACTERS or not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} was {_shown(value)}, {rule}")
    number = Decimal(text)
    if number and number.adjusted() >= _LARGEST:
        raise ValueError(f"{name} was {text}, {rule} below 1e{_LARGEST}")
    return number


def _shown(value: object) -> str:
    """Return a value as a message may show it: bounded, whatever it is."""
    if isinstance(value, str):
        return repr(value[:_MOST_CHARACTERS])
    if value is None or isinstance(value, bool | float | Decimal):
        return str(value)
    return f"of type {type(value).__name__}"


def _numeric(value: object) -> bool:
    """Return whether a value is a number of Python or numpy; a truth value is none."""
    if isinstance(value, bool):
        return False
    if isinstance(value, numbers.Integral):
        return int(value).bit_length() < _MOST_BITS
    return isinstance(value, numbers.Real | Decimal)
