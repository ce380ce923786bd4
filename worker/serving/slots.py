"""What is serving now: one active bundle a strategy with the candidates beside it, one panel of bars.

Owns: the references that requests read once each and that are swapped between two requests.
Must not know: registry, files, streams.
Invariant: a swap is one assignment of a finished value; a request sees all of one or all of the other.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

from contracts import ServedAs
from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from worker.errors import NoActiveBundle, NoSnapshot, StrategyNotServed, UnknownStrategy

#: How well a worker answers a strategy's requests: the order of its snapshot, then the activation that serves.
Rank: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveBundle:
    """A bundle that proved itself here, with the activation under which it answers."""

    bundle: Bundle
    activation: int
    since: datetime
    #: Whether it comes from the local cache, and the registry has not confirmed it yet.
    cached: bool = False
    #: In which role it computes; a candidate is here for one request, under the active version's activation.
    served_as: ServedAs = ServedAs.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The bundle of a version in testing, which proved itself here."""

    bundle: Bundle
    since: datetime
    #: Share of the requests that it answers as a canary; 0: none.
    canary_share: float = 0.0

    def beside(self, active: ActiveBundle, part: ServedAs) -> ActiveBundle:
        """Return it as it computes one request beside the active bundle."""
        return ActiveBundle(bundle=self.bundle, activation=active.activation, since=self.since, served_as=part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """All that computes for one strategy."""

    active: ActiveBundle
    #: The canary first, if there is one.
    candidates: tuple[Candidate, ...] = ()


class Slots:
    """The slot of each strategy, and the snapshot; swapped by any thread, read by all without a lock."""

    def __init__(self, served: tuple[str, ...] = ()) -> None:
        """Take the strategies this worker is configured for; none = all."""
        self._served = served
        self._slots: Mapping[str, Slot] = MappingProxyType({})
        self._known: frozenset[str] | None = frozenset()
        self._asked = False
        self._panel: Panel | None = None
        self._snapshot_order = ""
        self._loading: frozenset[str] = frozenset()
        #: Called when what serves has changed, by the thread that changed it.
        self._changed: Callable[[], None] = lambda: None
        # Two threads swap (an activation, a candidate that raised): each must build on the other's value.
        self._swapping = threading.Lock()

    @property
    def active(self) -> Mapping[str, ActiveBundle]:
        """Strategy to what serves it."""
        return {strategy: slot.active for strategy, slot in self._slots.items()}

    @property
    def candidates(self) -> Mapping[str, tuple[Candidate, ...]]:
        """Strategy to what computes beside the bundle that serves it."""
        return {strategy: slot.candidates for strategy, slot in self._slots.items() if slot.candidates}

    @property
    def served(self) -> tuple[str, ...]:
        """Strategies this worker is configured for; none = all."""
        return self._served

    @property
    def registered(self) -> frozenset[str] | None:
        """Strategies that the registry has a version of; None: it has not answered since the worker started."""
        return self._known if self._asked else None

    @property
    def panel(self) -> Panel | None:
        """The snapshot's bars, if one is loaded."""
        return self._panel

    @property
    def snapshot_order(self) -> str:
        """Text that is later for a newer snapshot; empty: none is loaded."""
        return self._snapshot_order

    @property
    def loading(self) -> frozenset[str]:
        """Strategies whose active version is being loaded."""
        return self._loading

    def loads(self, strategy: str) -> bool:
        """Return whether the active version of a strategy is being loaded."""
        return strategy in self._loading

    def rank(self, strategy: str) -> Rank | None:
        """Return how well this worker answers a strategy's requests; None: it does not."""
        slot = self._slots.get(strategy)
        return None if slot is None or self._panel is None else (self._snapshot_order, slot.active.activation)

    def unable(self) -> str:
        """Return why no request should be read; empty: what this worker is configured for serves."""
        missing = [strategy for strategy in self._served if strategy not in self._slots]
        if missing:
            return f"no model is active here of {', '.join(missing)}"
        if not self._slots:
            return "no model is active here"
        return "no snapshot of bars is loaded" if self._panel is None else ""

    def watch(self, changed: Callable[[], None]) -> None:
        """Take what to call when what serves has changed; it must not wait."""
        self._changed = changed

    def serves(self, strategy: str) -> bool:
        """Whether this worker is configured for the strategy."""
        return not self._served or strategy in self._served

    def slot(self, strategy: str) -> Slot:
        """Return what computes for a strategy, at one instant.

        Raises:
            UnknownStrategy: The registry has no version of it.
            StrategyNotServed: This worker is configured for others.
            NoActiveBundle: No version of it is active, or none that loads.
        """
        slot = self._slots.get(strategy)
        if slot is not None:
            return slot
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

    def set_registered(self, strategies: frozenset[str] | None) -> None:
        """Remember every strategy that the registry has a version of; None: it could not be asked."""
        self._known, self._asked = strategies, True

    def put(self, active: ActiveBundle) -> None:
        """Let a bundle serve its strategy from the next request on; it is no candidate any more."""
        strategy = active.bundle.strategy
        with self._swapping:
            before = self._slots.get(strategy)
            left = [one for one in before.candidates if one.bundle.version != active.bundle.version] if before else []
            self._swap(strategy, Slot(active=active, candidates=tuple(left)))

    def change_candidates(
        self, strategy: str, change: Callable[[tuple[Candidate, ...]], tuple[Candidate, ...]]
    ) -> bool:
        """Let compute beside what serves a strategy what `change` makes of those that do.

        Returns:
            Whether anything serves it; else nothing can compute beside it.
        """
        with self._swapping:
            slot = self._slots.get(strategy)
            if slot is not None:
                self._swap(strategy, Slot(active=slot.active, candidates=change(slot.candidates)))
            return slot is not None

    def drop_candidate(self, strategy: str, version: str) -> bool:
        """Let a candidate compute no more, and return whether it did."""
        with self._swapping:
            slot = self._slots.get(strategy)
            left = tuple(one for one in slot.candidates if one.bundle.version != version) if slot else ()
            if slot is None or len(left) == len(slot.candidates):
                return False
            self._swap(strategy, Slot(active=slot.active, candidates=left))
            return True

    def remove(self, strategy: str) -> None:
        """Let nothing serve a strategy any more."""
        with self._swapping:
            self._slots = MappingProxyType({name: slot for name, slot in self._slots.items() if name != strategy})
            self._changed()

    def put_panel(self, panel: Panel, order: str = "0") -> None:
        """Let a snapshot serve from the next request on; of a newer one the order is the later text."""
        self._panel = panel
        self._snapshot_order = order
        self._changed()

    def set_loading(self, strategies: frozenset[str]) -> None:
        """Note strategies whose active version is being loaded."""
        self._loading = strategies
        self._changed()

    def _swap(self, strategy: str, slot: Slot) -> None:
        self._slots = MappingProxyType({**self._slots, strategy: slot})
        self._changed()
