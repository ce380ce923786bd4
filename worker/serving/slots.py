"""What is serving now: one bundle a strategy, one panel of bars.

Owns: the references that requests read once each and that the control thread swaps.
Must not know: registry, files, streams.
Invariant: a swap is one assignment of a finished value; a request sees all of one or all of the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from worker.errors import NoActiveBundle, NoSnapshot, StrategyNotServed, UnknownStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveBundle:
    """A bundle that proved itself here, with the activation that made it serve."""

    bundle: Bundle
    activation: int
    since: datetime
    #: Whether it comes from the local cache, and the registry has not confirmed it yet.
    cached: bool = False


class Slots:
    """The active bundle of each strategy, and the snapshot; written by one thread, read by others without a lock."""

    def __init__(self, served: tuple[str, ...] = ()) -> None:
        """Take the strategies this worker is configured for; none = all."""
        self._served = served
        self._active: Mapping[str, ActiveBundle] = MappingProxyType({})
        self._known: frozenset[str] | None = frozenset()
        self._panel: Panel | None = None

    @property
    def active(self) -> Mapping[str, ActiveBundle]:
        """Strategy to what serves it."""
        return self._active

    @property
    def served(self) -> tuple[str, ...]:
        """Strategies this worker is configured for; none = all."""
        return self._served

    @property
    def panel(self) -> Panel | None:
        """The snapshot's bars, if one is loaded."""
        return self._panel

    def serves(self, strategy: str) -> bool:
        """Whether this worker is configured for the strategy."""
        return not self._served or strategy in self._served

    def bundle(self, strategy: str) -> ActiveBundle:
        """Return what serves a strategy.

        Raises:
            UnknownStrategy: The registry has no version of it.
            StrategyNotServed: This worker is configured for others.
            NoActiveBundle: No version of it is active, or none that loads.
        """
        active = self._active.get(strategy)
        if active is not None:
            return active
        if not self.serves(strategy):
            raise StrategyNotServed(f"strategy {strategy} is not served here, only {', '.join(self._served)}")
        if self._known is None:
            raise NoActiveBundle(f"strategy {strategy} has no model in the local cache, and the registry is away")
        if strategy not in self._known:
            raise UnknownStrategy(strategy, tuple(sorted(self._known)))
        raise NoActiveBundle(f"strategy {strategy} has no active model")

    def require_panel(self) -> Panel:
        """Return the snapshot's bars.

        Raises:
            NoSnapshot: None is loaded.
        """
        if self._panel is None:
            raise NoSnapshot("no snapshot of bars is loaded; import one with: signal-worker data import")
        return self._panel

    def know(self, strategies: frozenset[str] | None) -> None:
        """Remember every strategy that the registry has a version of; None: it could not be asked."""
        self._known = strategies

    def put(self, active: ActiveBundle) -> None:
        """Let a bundle serve its strategy from the next request on."""
        self._active = MappingProxyType({**self._active, active.bundle.strategy: active})

    def remove(self, strategy: str) -> None:
        """Let nothing serve a strategy any more."""
        self._active = MappingProxyType({name: value for name, value in self._active.items() if name != strategy})

    def put_panel(self, panel: Panel) -> None:
        """Let a snapshot serve from the next request on."""
        self._panel = panel
