"""Which versions in testing compute beside the active ones here.

Owns: the choice of candidates, their proof one after the other, what becomes of one that fails it.
Must not know: streams of requests, what candidates compute.
Invariant: a candidate has proven itself as an active version does; whatever it does, what serves stays as it is; what
is no candidate in the registry any more computes no more from that look on.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import structlog

from contracts import FleetEventType, ServedAs, StandingCandidate
from strategies.errors import BundleError, BundleUnavailable
from strategies.models.bundle import Bundle
from worker.clock import utc_now
from worker.events import Events
from worker.lifecycle.failure_reporter import FailureReporter
from worker.lifecycle.loader import ModelSources
from worker.registry.models import ActiveModel, CandidateModel
from worker.serving.shadow import Shadows
from worker.serving.slots import Candidate, Slots

Key = tuple[str, str]

_log = structlog.get_logger()


@dataclass(slots=True)
class RejectedVersions:
    """Why candidates do not compute here, by strategy and version."""

    #: Failed their proof or raised: not tried again before someone asks for it.
    for_good: dict[Key, str]
    #: Not here, or forbidden here: tried again at the next look.
    for_now: dict[Key, str]

    def reason(self, key: Key) -> str:
        """Return why a version does not compute here; empty: it was not rejected."""
        return self.for_good.get(key) or self.for_now.get(key) or ""


class Candidates:
    """The candidates of one worker.

    The control thread calls `release`, `take_verified` and `set_desired`, the shadow thread `verify_next`, the
    heartbeat `status`; only the shadow thread waits for a proof, so that no activation does.
    """

    def __init__(self, slots: Slots, shadows: Shadows, sources: ModelSources, *, limit: int) -> None:
        """Take every part from the composition root; `limit` is the most candidates of a strategy."""
        self._slots, self._shadows, self._sources, self._limit = slots, shadows, sources, limit
        self._lock = threading.Lock()
        self._desired: dict[Key, CandidateModel] = {}
        self._left_out: tuple[Key, ...] = ()
        self._rejected = RejectedVersions({}, {})
        #: Bundles of versions that are no candidates any more, for the activation that may be why.
        self._verified: dict[Key, Bundle] = {}

    def release(self, models: Mapping[str, tuple[CandidateModel, ...]]) -> None:
        """Let compute no more what is no candidate any more, and let canaries answer the share they have now."""
        stated = _keyed(self._chosen(models))
        with self._lock:
            self._desired = {key: stated[key] for key in self._desired if key in stated}
            for strategy, loaded in self._slots.candidates.items():
                keys = [(strategy, candidate.bundle.version) for candidate in loaded]
                self._verified |= {
                    key: candidate.bundle for key, candidate in zip(keys, loaded, strict=True) if key not in stated
                }
                self._slots.change_candidates(strategy, partial(self._in_order, strategy))

    def take_verified(self, model: ActiveModel) -> Bundle | None:
        """Return the bundle of an active version that has proven itself here as a candidate with the same digest."""
        key = model.strategy, model.version
        bundle = self._verified.get(key)
        same = bundle is not None and bundle.bundle_sha256 == model.ref.bundle_sha256
        return bundle if same else None

    def set_desired(self, models: Mapping[str, tuple[CandidateModel, ...]], *, again: Callable[[str], bool]) -> None:
        """Take what is to compute from now on; the shadow thread proves what is not loaded yet.

        Args:
            models: Strategy to its versions in testing: the canary, then the newest first.
            again: Whether what was refused of a strategy is to be tried again.
        """
        serving = {name: found for name, found in models.items() if name in self._slots.active}
        wanted = self._chosen(serving)
        left_out = tuple(key for key in _keyed(serving) if key not in _keyed(wanted))
        with self._lock:
            self._verified.clear()
            self._rejected.for_now.clear()
            self._rejected.for_good = {
                key: why for key, why in self._rejected.for_good.items() if key in _keyed(wanted) and not again(key[0])
            }
            self._desired = _keyed(wanted)
            reported, self._left_out = self._left_out, left_out
        if left_out and left_out != reported:
            _log.warning("candidates_left_out", limit=self._limit, versions=[" ".join(key) for key in left_out])

    def verify_next(self, reporter: FailureReporter, events: Events) -> bool:
        """Verify one candidate that is not loaded yet, and announce those that were dropped.

        Args:
            reporter: The shadow thread's own, used only where a proof failed.
            events: The shadow thread's own.

        Returns:
            Whether there was one to prove.
        """
        self._announce_dropped(events)
        with self._lock:
            missing = next(self._missing(), None)
        if missing is None:
            return False
        try:
            bundle = self._sources.proven(missing.ref)
        except BundleUnavailable as error:
            self._skip(missing, error)
        except BundleError as error:
            self._reject(missing, error, reporter)
        else:
            self._admit(missing, bundle, events)
        return True

    def status(self) -> tuple[StandingCandidate, ...]:
        """Return the state of every candidate, those left out included, by strategy and version."""
        with self._lock:
            wanted, left_out = dict(self._desired), self._left_out
            refused = {key: self._rejected.reason(key) for key in wanted}
        found = [self._status_of(key, wanted[key], refused[key]) for key in wanted]
        reason = f"left out: at most {self._limit} versions of a strategy are loaded"
        found += [
            StandingCandidate(strategy=key[0], version=key[1], part=ServedAs.SHADOW, share=0, reason=reason)
            for key in left_out
        ]
        return tuple(sorted(found, key=lambda one: (one.strategy, one.version)))

    def _chosen(self, models: Mapping[str, tuple[CandidateModel, ...]]) -> dict[str, tuple[CandidateModel, ...]]:
        """Return what is to be loaded: within the limit, and without shadowing the canaries alone."""
        limit = self._limit if self._shadows.share else 0
        return {
            strategy: tuple(model for row, model in enumerate(found) if row < limit or model.canary_share)
            for strategy, found in models.items()
            if self._slots.serves(strategy)
        }

    def _missing(self) -> Iterator[CandidateModel]:
        loaded = {
            (strategy, candidate.bundle.version)
            for strategy, candidates in self._slots.candidates.items()
            for candidate in candidates
        }
        for key, model in self._desired.items():
            if key not in loaded and not self._rejected.reason(key):
                yield model

    def _in_order(self, strategy: str, loaded: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Return the loaded candidates that are wanted, with the shares and in the order of the registry."""
        by_version = {candidate.bundle.version: candidate for candidate in loaded}
        return tuple(
            replace(by_version[version], canary_share=model.canary_share)
            for (name, version), model in self._desired.items()
            if name == strategy and version in by_version
        )

    def _admit(self, model: CandidateModel, bundle: Bundle, events: Events) -> None:
        key = model.strategy, model.version
        with self._lock:
            if key not in self._desired:
                return  # no candidate any more
            admitted = Candidate(bundle=bundle, since=utc_now())
            if not self._slots.change_candidates(
                model.strategy, lambda loaded: self._in_order(model.strategy, (*loaded, admitted))
            ):
                self._rejected.for_now[key] = "no version of the strategy serves here"
                return
        events.emit(FleetEventType.CANDIDATE_LOADED, strategy=model.strategy, version=model.version)

    def _skip(self, model: CandidateModel, error: BundleError) -> None:
        """Leave a version alone that cannot be verified here, which proves nothing about the version."""
        key, reason = (model.strategy, model.version), str(error)
        with self._lock:
            self._rejected.for_now[key] = reason
        _log.info("candidate_passed_over", strategy=model.strategy, version=model.version, reason=reason)

    def _reject(self, model: CandidateModel, error: BundleError, reporter: FailureReporter) -> None:
        """Report why a version does not compute, and fail it unless it was activated in the meantime."""
        key, reason = (model.strategy, model.version), str(error)[:2000]
        failed = reporter.report(model, error)
        with self._lock:
            (self._rejected.for_good if failed else self._rejected.for_now)[key] = reason

    def _announce_dropped(self, events: Events) -> None:
        while self._shadows.dropped_canaries:
            strategy, version, error = self._shadows.dropped_canaries.popleft()
            reason = f"as a canary: {error}; computes no more here until the next reload"[:2000]
            with self._lock:
                self._rejected.for_good[strategy, version] = reason
            events.emit(FleetEventType.CANDIDATE_DROPPED, strategy=strategy, version=version, reason=reason)

    def _status_of(self, key: Key, model: CandidateModel, refused: str) -> StandingCandidate:
        loaded = {one.bundle.version: one for one in self._slots.candidates.get(key[0], ())}.get(key[1])
        return StandingCandidate(
            strategy=key[0],
            version=key[1],
            part=ServedAs.CANARY if model.canary_share else ServedAs.SHADOW,
            share=model.canary_share or self._shadows.share,
            since=loaded.since if loaded else None,
            proven=loaded.bundle.proven if loaded else None,
            reason="" if loaded else refused or "not proven yet",
        )


def _keyed(models: Mapping[str, tuple[CandidateModel, ...]]) -> dict[Key, CandidateModel]:
    return {(model.strategy, model.version): model for found in models.values() for model in found}
