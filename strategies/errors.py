"""Errors of the strategies room.

Owns: one class for each way in which bars, expressions, bundles or constructions cannot honestly give an answer.
Must not know: streams, codes on the wire, databases; `worker/serving/rejections.py` maps these classes to wire codes.
Invariant: a message names the thing, the value found and the limit.
"""

from collections.abc import Collection
from datetime import date


class StrategyError(Exception):
    """A request that these bars and this bundle cannot honestly answer."""


class UnknownSymbols(StrategyError):
    """Symbols that the snapshot has no bars of."""

    def __init__(self, symbols: tuple[str, ...], known: Collection[str]) -> None:
        # Snapshots spell symbols in upper case. Other near names are not looked for: that costs much on the hot path.
        cased = [symbol.upper() for symbol in symbols if symbol.upper() in known]
        hint = f"; did you mean {', '.join(cased)}?" if cased else ""
        super().__init__(
            f"unknown symbols {', '.join(symbols)}: the snapshot has {len(known)} symbols, none of these{hint}"
        )
        self.symbols, self.known = symbols, len(known)


class AsOfBeforeData(StrategyError):
    """The as-of session is before the first session of the snapshot."""

    def __init__(self, as_of: date, first: date) -> None:
        super().__init__(f"as_of {as_of} lies before the snapshot's first session {first}")
        self.as_of, self.first = as_of, first


class AsOfInFuture(StrategyError):
    """The as-of date or instant is after now."""

    def __init__(self, as_of: str, now: str) -> None:
        super().__init__(f"as_of {as_of} lies in the future, now is {now}")
        self.as_of, self.now = as_of, now


class CalendarRange(StrategyError):
    """A date outside the range that the exchange calendar covers."""

    def __init__(self, day: date, first: date, last: date) -> None:
        super().__init__(f"{day} is outside the exchange calendar, which covers {first} to {last}")
        self.day, self.first, self.last = day, first, last


class StaleSnapshot(StrategyError):
    """The snapshot's bars end before the as-of session."""

    def __init__(self, as_of: date, last: date) -> None:
        super().__init__(f"the as-of session is {as_of}, but the snapshot's bars end at {last}")
        self.as_of, self.last = as_of, last


class StaleSymbols(StrategyError):
    """Symbols whose last bar is older than the as-of session allows."""

    def __init__(self, stale: dict[str, int], limit: int) -> None:
        listed = ", ".join(f"{symbol} ({sessions})" for symbol, sessions in stale.items())
        super().__init__(f"stale bars, in sessions behind the as-of session: {listed}; at most {limit} allowed")
        self.stale, self.limit = stale, limit


class HistoryTooShort(StrategyError):
    """Symbols with fewer bars up to the as-of session than the feature set looks back."""

    def __init__(self, bars: dict[str, int], lookback: int, *, needed: int | None = None) -> None:
        listed = ", ".join(f"{symbol} ({count})" for symbol, count in bars.items())
        if needed is None:
            sentence = f"too little history, in bars up to the as-of session: {listed}; lookback is {lookback}"
        else:
            sentence = f"too few bars in the last {lookback} sessions: {listed}; at least {needed} are needed"
        super().__init__(sentence)
        self.bars, self.lookback, self.needed = bars, lookback, needed


class NotTradable(StrategyError):
    """Symbols that did not trade on the as-of session."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        super().__init__(f"not tradable as of the session: {', '.join(symbols)}")
        self.symbols = symbols


class HeldBack(StrategyError):
    """Symbols whose bars have an unsettled step inside the lookback."""

    def __init__(self, since: dict[str, date]) -> None:
        listed = ", ".join(f"{symbol} (since {day})" for symbol, day in since.items())
        super().__init__(f"held back for a step in price that looks like a split and that nobody has settled: {listed}")
        self.since = since


class NothingToPrice(StrategyError):
    """Every requested symbol was left out, so there is nothing to rank."""

    def __init__(self, requested: int, reasons: str) -> None:
        super().__init__(f"none of the {requested} requested symbols can be priced: {reasons}")
        self.requested = requested


class InfeasibleConstruction(StrategyError):
    """Predictions or parameters from which no portfolio can be made."""


class TooManyToExplain(StrategyError):
    """More symbols than one explained answer may have."""

    def __init__(self, symbols: int, limit: int) -> None:
        super().__init__(f"{symbols} symbols are to be explained, at most {limit} a request; ask without explain")
        self.symbols, self.limit = symbols, limit


class NotExplainable(StrategyError):
    """A model whose predictions are no sum of its features' contributions."""


class DataError(Exception):
    """Files that cannot become bars: a missing folder, a wrong column, an unreadable table."""


class UnknownCalendar(DataError):
    """A calendar code that `exchange_calendars` does not know."""

    def __init__(self, name: str, more: str = "") -> None:
        and_more = f", {more}" if more else ""
        super().__init__(f"unknown exchange calendar {name!r}: exchange_calendars has none of that name{and_more}")
        self.name = name


class UnusableCalendar(DataError):
    """A calendar that `exchange_calendars` lists and cannot open for the days asked."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"exchange calendar {name!r} does not open: {reason[:200]}")
        self.name = name


class SnapshotNotFound(DataError):
    """No complete snapshot under the data directory, or not the one asked for."""


class SnapshotRefused(DataError):
    """A snapshot that did not pass its checks, and so must not serve."""

    def __init__(self, folder: str, snapshot_id: str, reasons: str) -> None:
        super().__init__(f"snapshot {snapshot_id[:12]} of {folder} is not served: {reasons}")
        self.folder, self.snapshot_id, self.reasons = folder, snapshot_id, reasons


class ExpressionError(Exception):
    """An expression that cannot be parsed, compiled or served; names the column and the expression."""


class BundleError(Exception):
    """A model bundle that must not serve."""


class BundleUnavailable(BundleError):
    """A bundle that this machine cannot read, check or serve now, whatever its bytes are."""


class BundleNotFound(BundleUnavailable):
    """No bundle at the given path."""


class EngineDiffers(BundleUnavailable):
    """A bundle that this release or these libraries cannot compute: another one may."""


class MachineUnproven(BundleUnavailable):
    """A machine that does not reproduce the reference sample, and so cannot judge a bundle."""


class BundleExists(BundleError):
    """A bundle of this strategy and version is already there, and bundles never change."""


class DigestMismatch(BundleError):
    """A file of the bundle differs from the digest its manifest states."""

    def __init__(self, name: str, expected: str, was: str) -> None:
        super().__init__(f"{name} has SHA-256 {was}, the bundle states {expected}")
        self.name, self.expected, self.was = name, expected, was


class FeatureSetMismatch(BundleError):
    """The bundle's feature set is not the one the booster was trained on."""


class GoldenSampleMismatch(BundleError):
    """Replaying the golden sample gave another feature or prediction than training saw."""


class MalformedBundle(BundleError):
    """Files of a bundle that are none, contradict each other or the registry, or are too large."""


class MalformedModel(BundleError):
    """Model bytes that do not parse, or parse into something that cannot predict."""


#: Faults of the bytes of a bundle themselves; any other `BundleError` is of the place where it was raised.
CAUSED_BY_BYTES: tuple[type[BundleError], ...] = (
    DigestMismatch,
    FeatureSetMismatch,
    GoldenSampleMismatch,
    MalformedBundle,
    MalformedModel,
)


class TrainingError(Exception):
    """Bars and settings from which no model can be trained or evaluated; names the setting and its value."""
