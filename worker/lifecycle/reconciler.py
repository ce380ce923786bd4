"""Making what serves equal to what the registry and the data directory say.

Owns: the comparison, and the order of proving, swapping and telling.
Must not know: streams of requests, how a bundle is proven.
Invariant: a bundle that fails its proof changes nothing that serves; lost, late, doubled and reordered hints all end in
the same state, since only the registry decides.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from contracts import FleetEventType
from strategies.errors import BundleError, DataError, SnapshotNotFound
from strategies.market.bars import Panel
from strategies.market.snapshots import SnapshotRef
from strategies.models.bundle import Bundle
from worker.clock import utc_now
from worker.errors import RegistryUnavailable
from worker.events import Events
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.failure_reporter import Refusals
from worker.lifecycle.loader import Sources
from worker.registry.registry import ActiveModel, Registry
from worker.serving.slots import ActiveBundle, Slots

_log = structlog.get_logger()


class Reconciler:
    """Belongs to the control thread, as do its registry connection and its events."""

    def __init__(
        self,
        registry: Registry,
        slots: Slots,
        events: Events,
        *,
        sources: Sources,
        candidates: Candidates,
        refusals: Refusals,
    ) -> None:
        """Take every part from the composition root."""
        self._registry, self._slots, self._events, self._sources = registry, slots, events, sources
        self._candidates, self._refusals = candidates, refusals
        self._refused: dict[str, tuple[tuple[str, int], str]] = {}
        #: Whether a version was failed in this look, so that the registry may say another one by now.
        self._gave_way = False
        #: Strategies whose remembered version did not prove itself again; said once.
        self._passed_over: set[str] = set()
        #: What the last look could not do, one sentence each; whoever asked for it is told.
        self.troubles: list[str] = []
        self.registry_away = False
        self.snapshot_refused = ""

    def reconcile(self, *, control_id: str | None = None, force: bool = False, strategy: str | None = None) -> bool:
        """Load what is new, drop what was deactivated.

        Args:
            control_id: The control event that asked, for the answer on the events stream.
            force: Try again what failed its proof before.
            strategy: Of which it is tried again; None: of all. Everything is compared in any case.

        Returns:
            Whether the registry could be asked.
        """
        self.troubles = []
        self._refresh_snapshot()

        def meant(name: str) -> bool:
            return force and strategy in {None, name}

        self._refused = {name: why for name, why in self._refused.items() if not meant(name)}
        asked = self._look(control_id, again=meant)
        # The version before it may have to prove itself too, and fail: as often as there are versions.
        while asked and self._gave_way:
            asked = self._look(control_id, again=lambda _: False)
        return asked

    def serves(self, strategy: str) -> bool:
        """Return whether this worker is configured for a strategy."""
        return self._slots.serves(strategy)

    def _look(self, control_id: str | None, *, again: Callable[[str], bool]) -> bool:
        self._gave_way = False
        try:
            active = self._registry.active_models()
            candidates = self._registry.candidates()
            known = self._registry.strategies()
            withdrawn = [
                name
                for name, serving in self._slots.active.items()
                if name not in active and self._registry.withdrawn(name, serving.bundle.version)
            ]
            self._forget_withdrawn(active)
        except RegistryUnavailable as error:
            if not self.registry_away:
                _log.warning("registry_away", reason=str(error), serving=sorted(self._slots.active))
            self.registry_away = True
            self.troubles.append(f"the registry is away: {error}")
            return False
        if self.registry_away:
            _log.info("registry_back")
        self.registry_away = False
        self._slots.know(frozenset(known))
        self._confirm_cached()
        # What is no candidate any more stops before anything loads; what is one loads elsewhere, after the active ones.
        self._candidates.release(candidates)
        for strategy in withdrawn:
            self._slots.remove(strategy)
            self._events.say(FleetEventType.MODEL_REMOVED, strategy=strategy, control_id=control_id)
        for model in active.values():
            if self._slots.serves(model.strategy):
                self._activate(model, control_id)
        self._candidates.want(candidates, again=again)
        return True

    def serve_cached(self) -> bool:
        """Let serve what proved itself on this machine last, once it has proven itself again.

        Returns:
            Whether the worker may start without the registry: the settings allow it, and each strategy that it is
            configured for is served.
        """
        if not self._sources.serve_from_cache:
            return False
        for model in self._sources.cache.models():
            if self._slots.serves(model.strategy) and model.strategy not in self._passed_over:
                self._activate(model, None, from_cache="the registry is away")
        active = self._slots.active
        served = bool(active) and all(strategy in active for strategy in self._slots.served)
        if served:
            self._slots.know(None)
        return served

    def _confirm_cached(self) -> None:
        """Note that the registry has answered: from now on it decides, as for every other bundle."""
        for serving in self._slots.active.values():
            if serving.cached:
                self._slots.put(replace(serving, cached=False))

    def _forget_withdrawn(self, active: Mapping[str, ActiveModel]) -> None:
        """Keep what was taken out of service from coming back through the cache."""
        for model in self._sources.cache.models():
            if model.strategy not in active and self._registry.withdrawn(model.strategy, model.version):
                self._sources.cache.forget(model.strategy)

    def _activate(self, model: ActiveModel, control_id: str | None, *, from_cache: str = "") -> None:
        """Let a version serve once it has proven itself; `from_cache` says why it is a remembered one."""
        serving = self._slots.active.get(model.strategy)
        # A registry that lost its last commits, in a failover, gives their numbers to other versions.
        if serving is not None and (serving.bundle.version, serving.activation) == _identity(model):
            return
        refused, reason = self._refused.get(model.strategy, (None, ""))
        if refused == _identity(model):
            self.troubles.append(f"{model.strategy} {model.version} was refused before: {reason}")
            return
        begun = time.perf_counter()
        try:
            bundle = _again(serving, model) or self._candidates.spare(model) or self._sources.proven(model.ref)
        except BundleError as error:
            if from_cache:
                self._pass_over(model, error)
            elif not self._refuse(model, error, control_id) and serving is None:
                self._fall_back(model)
            return
        self._slots.put(
            ActiveBundle(bundle=bundle, activation=model.activation, since=utc_now(), cached=bool(from_cache))
        )
        self._refused.pop(model.strategy, None)
        if bundle.proven and not from_cache:
            self._sources.cache.remember(model, bundle)
        self._events.say(
            FleetEventType.MODEL_LOADED,
            strategy=model.strategy,
            version=model.version,
            activation=model.activation,
            duration_ms=round((time.perf_counter() - begun) * 1000, 3),
            control_id=control_id,
            reason=f"from the local cache: {from_cache}" if from_cache else None,
        )

    def _pass_over(self, model: ActiveModel, error: BundleError) -> None:
        """Tell why a remembered version does not serve; the registry alone may say that it failed."""
        self._passed_over.add(model.strategy)
        self._events.say(
            FleetEventType.MODEL_FAILED,
            strategy=model.strategy,
            version=model.version,
            activation=model.activation,
            reason=f"from the local cache: {error}"[:2000],
        )

    def _refuse(self, model: ActiveModel, error: BundleError, control_id: str | None) -> bool:
        """Tell why a version does not serve, and return whether it failed: then the registry says what does instead."""
        self.troubles.append(f"{model.strategy} {model.version} is refused: {error}")
        if not self._refusals.tell(model, error, control_id):
            return False
        self._refused[model.strategy] = _identity(model), str(error)
        self._gave_way = True
        return True

    def _fall_back(self, model: ActiveModel) -> None:
        """Let what proved itself here last serve in place of a version that only this machine has not got.

        So the workers do that served it all along; one that starts meanwhile would answer nothing.
        """
        if not self._sources.serve_from_cache or model.strategy in self._passed_over:
            return
        for last in self._sources.cache.models():
            if last.strategy == model.strategy and last.version != model.version and not self._withdrawn(last):
                self._activate(last, None, from_cache=f"{model.version} cannot be loaded here")

    def _withdrawn(self, model: ActiveModel) -> bool:
        try:
            return self._registry.withdrawn(model.strategy, model.version)
        except RegistryUnavailable:
            return True  # nobody can say; the next look asks again

    def _refresh_snapshot(self) -> None:
        serving = self._slots.panel
        begun = time.perf_counter()
        try:
            newer = self._sources.snapshots.newer(serving)
            refused = self._sources.snapshots.refused()
        except SnapshotNotFound as error:
            self._tell_snapshot(str(error), missing=True)
            return
        except DataError as error:
            self._tell_snapshot(str(error), missing=False)
            return
        if newer is not None:
            self._put_snapshot(*newer, begun)
        if refused:
            # What serves goes on until it is stale.
            self._tell_snapshot(refused, missing=False)
        else:
            self.snapshot_refused = ""

    def _put_snapshot(self, snapshot: SnapshotRef, panel: Panel, begun: float) -> None:
        self._slots.put_panel(panel)
        self._events.say(
            FleetEventType.SNAPSHOT_LOADED,
            snapshot_id=snapshot.id,
            duration_ms=round((time.perf_counter() - begun) * 1000, 3),
        )

    def _tell_snapshot(self, reason: str, *, missing: bool) -> None:
        self.troubles.append(reason)
        if reason == self.snapshot_refused:
            return
        self.snapshot_refused = reason
        if missing:
            _log.warning("snapshot_missing", reason=reason)
        else:
            self._events.say(FleetEventType.SNAPSHOT_FAILED, reason=reason[:2000])


def _again(serving: ActiveBundle | None, model: ActiveModel) -> Bundle | None:
    """Return the bundle that serves, if an activation of another number names the same one."""
    same = (
        serving is not None
        and serving.bundle.version == model.version
        and serving.bundle.bundle_sha256 == model.ref.bundle_sha256
    )
    return serving.bundle if serving is not None and same else None


def _identity(model: ActiveModel) -> tuple[str, int]:
    return model.version, model.activation
