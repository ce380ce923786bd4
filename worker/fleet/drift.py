"""The drift thread: compares the bars that serve with those that the serving models were trained on.

Owns: when drift is measured (once for each bundle on each snapshot, as nothing else changes it), the last report of
each strategy, what is logged when it reaches the alarm.
Must not know: requests, streams, how drift is computed.
Invariant: it never uses a booster that requests are answered with, and rests as long as it works; what cannot be
measured is logged once and costs nobody an answer.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import lightgbm as lgb
import structlog

from strategies.analysis.drift import MAJOR_PSI, DriftReport, measure_drift
from strategies.errors import BundleError, DataError, ExpressionError
from strategies.market.bars import Panel
from strategies.models.bundle import Bundle
from worker.service import Service
from worker.serving.slots import Slots
from worker.shutdown import Shutdown

#: Pause between two looks whether a bundle or the snapshot changed, in seconds.
LOOK_SECONDS = 1.0

_log = structlog.get_logger()


class DriftWatch:
    """What is known of the drift of everything that serves here; measured by one thread, read by all without a lock."""

    def __init__(self, slots: Slots, *, sessions: int, alarm_psi: float) -> None:
        """Take over how many sessions drift is measured (0: never), and from which PSI on it is an alarm."""
        self._slots, self._sessions, self._alarm_psi = slots, sessions, alarm_psi
        #: Strategy to the bundle and the snapshot that were looked at last.
        self._seen: dict[str, tuple[str, str]] = {}
        self._alarmed: set[str] = set()
        #: Strategy to its last report; without those that could not be measured.
        self.reports: Mapping[str, DriftReport] = MappingProxyType({})

    @property
    def wanted(self) -> bool:
        """Whether drift is measured here at all."""
        return self._sessions > 0

    def look(self, go_on: Callable[[], bool]) -> None:
        """Measure what changed since the last look; asked between two pieces, `go_on` may end it."""
        panel, active = self._slots.panel, self._slots.active
        self._keep({name: report for name, report in self.reports.items() if name in active})
        self._seen = {name: seen for name, seen in self._seen.items() if name in active}
        for strategy, serving in active.items():
            bundle = serving.bundle
            if panel is None or self._seen.get(strategy) == (bundle.bundle_sha256, panel.snapshot_id):
                continue
            if not self._measure(bundle, panel, go_on):
                return
            self._seen[strategy] = bundle.bundle_sha256, panel.snapshot_id

    def _measure(self, bundle: Bundle, panel: Panel, go_on: Callable[[], bool]) -> bool:
        """Return whether there is an answer, be it that there can be none."""
        begun = time.perf_counter()
        try:
            report = measure_drift(_apart(bundle), panel, self._sessions, go_on=go_on)
        except (BundleError, DataError, ExpressionError) as error:
            self._keep({name: report for name, report in self.reports.items() if name != bundle.strategy})
            _log.warning(
                "drift_not_measured",
                strategy=bundle.strategy,
                version=bundle.version,
                snapshot_id=panel.snapshot_id,
                reason=str(error),
            )
            return True
        if report is None:
            return False
        self._keep({**self.reports, bundle.strategy: report})
        self._say(report, round((time.perf_counter() - begun) * 1000, 3))
        return True

    def _keep(self, reports: dict[str, DriftReport]) -> None:
        # One assignment of a finished value: a scrape sees all of one look or all of another.
        self.reports = MappingProxyType(reports)

    def _say(self, report: DriftReport, duration_ms: float) -> None:
        known = {
            "strategy": report.strategy,
            "version": report.version,
            "snapshot_id": report.snapshot_id,
            "psi": round(report.prediction.psi, 4),
            "chance_psi": None if report.chance_psi is None else round(report.chance_psi, 4),
            "ks": None if report.prediction.ks is None else round(report.prediction.ks, 4),
            "worst_feature": report.features[0].name,
            "worst_psi": round(report.features[0].psi, 4),
            "major_features": report.above(MAJOR_PSI),
        }
        _log.info("drift_measured", rows=report.rows, sessions=report.sessions, duration_ms=duration_ms, **known)
        alarmed = report.alarms(self._alarm_psi)
        if alarmed and report.strategy not in self._alarmed:
            self._alarmed.add(report.strategy)
            _log.warning("drift_alarm", alarm_psi=self._alarm_psi, **known)
        elif not alarmed and report.strategy in self._alarmed:
            self._alarmed.discard(report.strategy)
            _log.info("drift_settled", alarm_psi=self._alarm_psi, **known)


class DriftThread(Service):
    """Measures drift until the worker stops; ends at once where drift is not measured."""

    def __init__(self, watch: DriftWatch, shutdown: Shutdown) -> None:
        """Take a watch that belongs to this thread from now on."""
        super().__init__("drift", shutdown)
        self._watch = watch
        self._worked_since = 0.0

    def serve(self) -> None:
        """Measure what changed, again and again after a pause."""
        while self._watch.wanted and not self._shutdown.stopping.wait(LOOK_SECONDS):
            self._worked_since = time.perf_counter()
            self._watch.look(self._rest)

    def _rest(self) -> bool:
        """Rest as long as the piece took, and return whether to go on.

        A lower priority would do harm: a thread that owns the interpreter's lock while it is not scheduled stops
        those that answer requests.
        """
        stopping = self._shutdown.stopping.wait(time.perf_counter() - self._worked_since)
        self._worked_since = time.perf_counter()
        return not stopping


def _apart(bundle: Bundle) -> Bundle:
    """Return an equal bundle with a booster of its own, as requests are answered with the other at the same time."""
    text = bundle.booster.model_to_string(num_iteration=-1)
    return replace(bundle, booster=lgb.Booster(model_str=text))
