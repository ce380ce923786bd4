"""Making what serves equal to what the registry and the data directory state.

Owns: reading what is desired, applying the plan, the order of verifying, swapping and announcing.
Must not know: streams of requests, how a bundle is verified.
Invariant: a bundle that fails its proof changes nothing that serves; lost, late, doubled and reordered hints all end in
the same state, since only the registry decides.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from contracts import FleetEventType
from strategies.errors import BundleError, DataError, SnapshotNotFound
from strategies.market.bars import Panel
from strategies.market.snapshots import SnapshotRef
from strategies.models.bundle import Bundle
from strategies.suggestions import did_you_mean
from worker.clock import utc_now
from worker.errors import RegistryUnavailable
from worker.events import Events
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.failure_reporter import FailureReporter
from worker.lifecycle.loader import ModelSources
from worker.lifecycle.plan import Desired, Plan, RejectedVersion, Report, diff
from worker.lifecycle.refusals import Refusals
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
        sources: ModelSources,
        candidates: Candidates,
        reporter: FailureReporter,
        refusals: Refusals,
        registry_unavailable: threading.Event,
    ) -> None:
        """Take every part from the composition root; the event is set while the registry is unavailable."""
        self._refusals = refusals
        self._registry, self._slots, self._events, self._sources = registry, slots, events, sources
        self._candidates, self._reporter, self._registry_unavailable = candidates, reporter, registry_unavailable
        #: Strategy to the version that was rejected last.
        self._rejected: dict[str, RejectedVersion] = {}
        #: Strategies whose last known good version did not prove itself again; announced once.
        self._skipped: set[str] = set()
        #: Strategies of the settings that the registry does not know; announced once.
        self._unknown: tuple[str, ...] = ()
        #: Why the newest snapshot does not serve; empty: it does.
        self.snapshot_refused = ""

    def serves(self, strategy: str) -> bool:
        """Return whether this worker is configured for a strategy."""
        return self._slots.serves(strategy)

    def reconcile(self, *, control_id: str | None = None, force: bool = False, strategy: str | None = None) -> Report:
        """Load what is new, drop what was deactivated.

        Args:
            control_id: The control event that asked, for the answer on the events stream.
            force: Try again what failed its proof before.
            strategy: Of which it is tried again; None: of all. Everything is compared in any case.
        """
        again: Callable[[str], bool] = partial(_is_tried_again, force, strategy)
        errors = self._refresh_snapshot()
        self._rejected = {name: rejected for name, rejected in self._rejected.items() if not again(name)}
        while True:
            try:
                desired = self._desired()
            except RegistryUnavailable as error:
                return Report(registry_reached=False, errors=(*errors, f"the registry is away: {error}"))
            refused, found = self._apply(desired, control_id, again)
            errors += found
            if True not in refused:
                return Report(registry_reached=True, errors=tuple(errors), refused_here=bool(refused))
            # The version before it may have to prove itself too, and fail: as often as there are versions.
            again = partial(_is_tried_again, False, None)

    def serve_cached(self) -> bool:
        """Let serve what proved itself on this machine last, once it has proven itself again.

        Returns:
            Whether the worker may start without the registry: the settings allow it, and each strategy that it is
            configured for is served.
        """
        if not self._sources.serve_from_cache:
            return False
        for model in self._sources.cache.models():
            if self._slots.serves(model.strategy) and model.strategy not in self._skipped:
                self._activate_cached(model, "the registry is away")
        active = self._slots.active
        served = bool(active) and all(strategy in active for strategy in self._slots.served)
        if served:
            self._slots.set_registered(None)
        return served

    def _desired(self) -> Desired:
        """Return what the registry states.

        Raises:
            RegistryUnavailable: It cannot be asked now; what serves stays as it is.
        """
        serving = self._slots.active
        try:
            active, candidates = self._registry.active_models(), self._registry.candidates()
            desired = Desired(
                active={name: model for name, model in active.items() if self._slots.serves(name)},
                candidates=candidates,
                strategies=frozenset(self._registry.strategies()),
                withdrawn=frozenset(
                    name
                    for name, bundle in serving.items()
                    if name not in active and self._registry.withdrawn(name, bundle.bundle.version)
                ),
            )
            for model in self._sources.cache.models():
                # What was taken out of service must not come back through the cache.
                if model.strategy not in active and self._registry.withdrawn(model.strategy, model.version):
                    self._sources.cache.forget(model.strategy)
        except RegistryUnavailable as error:
            if not self._registry_unavailable.is_set():
                _log.warning("registry_away", reason=str(error), serving=sorted(serving))
            self._registry_unavailable.set()
            raise
        if self._registry_unavailable.is_set():
            _log.info("registry_back")
        self._registry_unavailable.clear()
        return desired

    def _apply(
        self, desired: Desired, control_id: str | None, again: Callable[[str], bool]
    ) -> tuple[list[bool], list[str]]:
        """Make what serves equal to what is desired; return of each refused version whether it is failed, and why."""
        self._slots.set_registered(desired.strategies)
        self._warn_of_unknown(desired.strategies)
        for serving in self._slots.active.values():
            if serving.cached:  # the registry has answered: from now on it decides, as for every other bundle
                self._slots.put(replace(serving, cached=False))
        plan = diff(desired, self._slots.active, self._rejected)
        _log.debug(
            "activation_plan",
            remove=list(plan.remove),
            activate=[f"{model.strategy} {model.version} #{model.activation}" for model in plan.activate],
            errors=list(plan.errors),
        )
        # What is no candidate any more stops before anything loads; what is one loads elsewhere, after the active ones.
        self._candidates.release(desired.candidates)
        self._remove(plan, control_id)
        self._slots.set_loading(frozenset(model.strategy for model in plan.activate))
        rejected = [each for model in plan.activate if (each := self._activate(model, control_id)) is not None]
        self._slots.set_loading(frozenset())
        self._candidates.set_desired(desired.candidates, again=again)
        self._refusals.keep(self._wanted(desired))
        return [failed for failed, _ in rejected], [*plan.errors, *(sentence for _, sentence in rejected)]

    def _wanted(self, desired: Desired) -> set[tuple[str, str]]:
        """Return the versions that are to serve or to compute beside those, and do not serve here."""
        serving = {(name, one.bundle.version) for name, one in self._slots.active.items()}
        candidates = [(one.strategy, one.version) for found in desired.candidates.values() for one in found]
        return {*((one.strategy, one.version) for one in desired.active.values()), *candidates} - serving

    def _warn_of_unknown(self, registered: frozenset[str]) -> None:
        unknown = tuple(name for name in self._slots.served if name not in registered)
        for name in unknown if unknown != self._unknown else ():
            near = did_you_mean(name, tuple(sorted(registered)))
            _log.warning("strategy_not_registered", strategy=name, setting="SIGNALS_STRATEGIES", hint=near.strip("; "))
        self._unknown = unknown

    def _remove(self, plan: Plan, control_id: str | None) -> None:
        for strategy in plan.remove:
            self._slots.remove(strategy)
            self._events.emit(FleetEventType.MODEL_REMOVED, strategy=strategy, control_id=control_id)

    def _activate(self, model: ActiveModel, control_id: str | None) -> tuple[bool, str] | None:
        """Let a version serve once it has proven itself; else return whether it is failed, and a sentence."""
        serving, began = self._slots.active.get(model.strategy), time.perf_counter()
        try:
            bundle = self._verified(model)
        except BundleError as error:
            failed = self._reporter.report(model, error, control_id)
            if failed:
                self._rejected[model.strategy] = RejectedVersion(
                    version=model.version, activation=model.activation, reason=str(error)
                )
            elif serving is None:
                self._fall_back(model)
            return failed, f"{model.strategy} {model.version} is refused: {error}"
        self._swap(model, bundle, began, control_id=control_id)
        if bundle.proven:
            self._sources.cache.remember(model, bundle)
        return None

    def _activate_cached(self, model: ActiveModel, reason: str) -> None:
        """Let the last known good version serve once it has proven itself again."""
        began = time.perf_counter()
        cached = Desired(active={model.strategy: model}, candidates={}, strategies=frozenset(), withdrawn=frozenset())
        if not diff(cached, self._slots.active, self._rejected).activate:
            return
        try:
            bundle = self._verified(model)
        except BundleError as error:
            # The registry alone may state that it failed.
            self._skipped.add(model.strategy)
            self._events.emit(
                FleetEventType.MODEL_FAILED,
                strategy=model.strategy,
                version=model.version,
                activation=model.activation,
                reason=f"from the local cache: {error}"[:2000],
            )
            return
        self._swap(model, bundle, began, cached=reason)

    def _swap(
        self, model: ActiveModel, bundle: Bundle, began: float, *, control_id: str | None = None, cached: str = ""
    ) -> None:
        active = ActiveBundle(bundle=bundle, activation=model.activation, since=utc_now(), cached=bool(cached))
        self._slots.put(active)
        self._rejected.pop(model.strategy, None)
        self._events.emit(
            FleetEventType.MODEL_LOADED,
            strategy=model.strategy,
            version=model.version,
            activation=model.activation,
            duration_ms=round((time.perf_counter() - began) * 1000, 3),
            control_id=control_id,
            reason=f"from the local cache: {cached}" if cached else None,
        )

    def _verified(self, model: ActiveModel) -> Bundle:
        """Return the bundle of a version: the one that serves, one that was verified as a candidate, or a fresh one.

        Raises:
            BundleError: It does not prove itself.
        """
        serving = self._slots.active.get(model.strategy)
        return _same(serving, model) or self._candidates.take_verified(model) or self._sources.proven(model.ref)

    def _fall_back(self, model: ActiveModel) -> None:
        """Let the last known good version serve in place of one that only this machine has not got.

        So the workers do that served it all along; one that starts now would answer nothing.
        """
        if not self._sources.serve_from_cache or model.strategy in self._skipped:
            return
        for last in self._sources.cache.models():
            if last.strategy == model.strategy and last.version != model.version and not self._withdrawn(last):
                self._activate_cached(last, f"{model.version} cannot be loaded here")

    def _withdrawn(self, model: ActiveModel) -> bool:
        try:
            return self._registry.withdrawn(model.strategy, model.version)
        except RegistryUnavailable:
            return True  # not known; the next look asks again

    def _refresh_snapshot(self) -> list[str]:
        """Load the newest snapshot that may serve if another one does, and return what went wrong."""
        serving, began = self._slots.panel, time.perf_counter()
        try:
            newer = self._sources.snapshots.newer(serving)
            refused = self._sources.snapshots.refused()
        except DataError as error:
            return [self._report_snapshot(str(error), missing=isinstance(error, SnapshotNotFound))]
        if newer is not None:
            self._put_snapshot(*newer, began)
        if refused:
            # What serves stays until it is stale.
            return [self._report_snapshot(refused, missing=False)]
        self.snapshot_refused = ""
        return []

    def _put_snapshot(self, snapshot: SnapshotRef, panel: Panel, began: float) -> None:
        manifest = snapshot.manifest
        # The last part decides between two imports of one day on two machines.
        self._slots.put_panel(panel, f"{manifest.run_date}.{manifest.revision:06d}.{snapshot.id[:16]}")
        duration_ms = round((time.perf_counter() - began) * 1000, 3)
        self._events.emit(FleetEventType.SNAPSHOT_LOADED, snapshot_id=snapshot.id, duration_ms=duration_ms)

    def _report_snapshot(self, reason: str, *, missing: bool) -> str:
        """Announce once why no snapshot, or not the newest, serves, and return the reason."""
        if reason != self.snapshot_refused:
            self.snapshot_refused = reason
            if missing:
                _log.warning("snapshot_missing", reason=reason)
            else:
                self._events.emit(FleetEventType.SNAPSHOT_FAILED, reason=reason[:2000])
        return reason


def _same(serving: ActiveBundle | None, model: ActiveModel) -> Bundle | None:
    """Return the bundle that serves, if an activation of another number names the same one."""
    same = (
        serving is not None
        and serving.bundle.version == model.version
        and serving.bundle.bundle_sha256 == model.ref.bundle_sha256
    )
    return serving.bundle if serving is not None and same else None


def _is_tried_again(force: bool, strategy: str | None, name: str) -> bool:  # noqa: FBT001 - bound by its caller
    return force and strategy in {None, name}
