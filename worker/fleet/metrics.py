"""What a worker counts, in Prometheus's words.

Owns: the name, the help and the labels of every metric.
Must not know: how anything is counted, who scrapes.
Invariant: labels are of closed sets (codes, stages, strategies, streams, groups, the features that drifted most),
never a request id or a symbol, and a scrape asks no server.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, time

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from contracts import RejectionCode, ServedAs
from strategies.analysis.drift import DriftLevel, DriftReport
from worker.fleet.status import Facts
from worker.serving.shadow import ShadowResult
from worker.telemetry import BOUNDS, Histogram
from worker.transport.scripts import CommitStatus

_P = "signal_worker_"
_DROPS = (CommitStatus.DUPLICATE, CommitStatus.CONFLICT, CommitStatus.FENCED)
_ANSWERING = (ServedAs.ACTIVE.value, ServedAs.CANARY.value)
_KINDS = ("new", "own", "claimed")
#: Most features of a strategy whose drift is shown, the highest PSI first: a feature set may have thousands, and each
#: is two series of every worker.
DRIFT_FEATURES_SHOWN = 1000


class WorkerMetrics(Collector):
    """Reads the facts anew at each scrape."""

    def __init__(self, facts: Facts) -> None:
        """Take what is counted."""
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield InfoMetricFamily(
            f"{_P}build",
            "Who this is.",
            value={"worker": self._facts.worker, "version": self._facts.code_version},
        )
        yield from self._requests()
        yield from self._durations()
        yield from self._streams()
        yield from self._serving()
        yield from self._candidates()
        yield from self._drift()
        yield from self._housekeeping()

    def _requests(self) -> Iterator[Metric]:
        counters = self._facts.counters
        codes = {code.value: 0 for code in RejectionCode} | dict(counters.codes)
        yield _counter(
            "outcomes", "Outcomes published, by `answered` or rejection code.", "code",
            {"answered": counters.answered, **codes},
        )  # fmt: skip
        yield _counter(
            "vectors", "Vectors published, by the part of the model that computed them.", "served_as",
            dict.fromkeys(_ANSWERING, 0) | dict(counters.parts),
        )  # fmt: skip
        yield _counter(
            "canary_fallbacks", "Requests of a canary's share that the active version answered: the canary could not.",
            "", counters.canary_fallbacks,
        )  # fmt: skip
        yield _counter(
            "outcomes_dropped", "Outcomes not published: the id had one (to another question: conflict), or no lease.",
            "status", {status.value: 0 for status in _DROPS} | dict(counters.drops),
        )  # fmt: skip
        yield _counter("failures", "Entries whose processing raised and that were given back.", "", counters.failed)
        yield _counter(
            "deliveries", "Entries read: new, own of a former process or a lost reply, claimed from others.", "kind",
            dict.fromkeys(_KINDS, 0) | dict(counters.deliveries),
        )  # fmt: skip
        yield _counter("lease_losses", "Entries in hand that another worker took.", "", self._facts.leases.lost)
        yield _counter(
            "trimmed_pending_entries", "Requests cut from their stream while pending, which no worker can answer.", "",
            self._facts.stream.trimmed_pending,
        )  # fmt: skip

        yield _counter(
            "malformed_control_events", "Control events that could not be read.", "",
            self._facts.malformed_control_events(),
        )  # fmt: skip

    def _durations(self) -> Iterator[Metric]:
        counters = self._facts.counters
        stages = HistogramMetricFamily(
            f"{_P}stage_seconds", "Time of a published outcome, by stage: queue, compute, commit.", labels=["stage"]
        )
        for stage, histogram in counters.stages.items():
            stages.add_metric([stage], _buckets(histogram), histogram.seconds)
        yield stages
        whole = HistogramMetricFamily(f"{_P}end_to_end_seconds", "Time from a request's XADD to its outcome's.")
        whole.add_metric([], _buckets(counters.end_to_end), counters.end_to_end.seconds)
        yield whole

    def _streams(self) -> Iterator[Metric]:
        facts = self._facts
        yield _gauge("in_flight_entries", "Entries read and not yet answered here.", len(facts.leases.held()))
        if facts.backlog.lag is not None:
            yield _gauge(
                "lag_entries", "Entries of the group not yet delivered, as of the last beat.", facts.backlog.lag
            )
        if facts.backlog.pending is not None:
            yield _gauge(
                "pending_entries", "Entries of the group delivered and not acknowledged, as of the last beat.",
                facts.backlog.pending,
            )  # fmt: skip
        outages = CounterMetricFamily(
            f"{_P}outages", "Times a server went away, by connection and error class.", labels=["connection", "reason"]
        )
        for connection, outage in facts.outages.items():
            for reason, count in dict(outage.reasons).items():
                outages.add_metric([connection, reason], count)
        yield outages

    def _serving(self) -> Iterator[Metric]:
        facts = self._facts
        yield _gauge("alive", "Whether /livez says so.", int(not facts.liveness.reasons()))
        reasons = facts.readiness.reasons()
        yield _gauge("ready", "Whether /readyz says so.", int(not reasons))
        yield _labelled(
            "unready_reason", "1 for each reason why the worker is not ready.", ("reason",),
            {(reason.code,): 1.0 for reason in reasons},
        )  # fmt: skip
        yield _labelled(
            "model_activation", "Number of the activation that serves.", ("strategy",),
            {(name,): float(active.activation) for name, active in facts.slots.active.items()},
        )  # fmt: skip
        panel = facts.slots.panel
        if panel is not None:
            midnight = datetime.combine(panel.sessions[-1].astype(object), time(), UTC)
            yield _gauge(
                "snapshot_last_session_timestamp_seconds", "Last session of the bars, its midnight in UTC.",
                midnight.timestamp(),
            )  # fmt: skip

    def _candidates(self) -> Iterator[Metric]:
        facts = self._facts
        yield _counter(
            "shadows", "Answered requests for a version in testing: published, dropped at a full queue, declined or "
            "failed by the candidate, unpublished since the server did not take it.", "result",
            dict.fromkeys((result.value for result in ShadowResult), 0) | dict(facts.shadows.counts),
        )  # fmt: skip
        yield _gauge("shadow_waiting", "Answered requests that wait to be shadowed.", facts.shadows.waiting())
        yield _labelled(
            "candidates", "Versions in testing that compute here, by part.", ("strategy", "part"),
            Counter((one.strategy, one.part.value) for one in facts.candidates() if one.since is not None),
        )  # fmt: skip

    def _drift(self) -> Iterator[Metric]:
        reports = self._facts.drift.reports
        yield _labelled(
            "drift_prediction_psi", "PSI of the prediction on recent bars against its model's training rows.",
            ("strategy",), {(name,): report.prediction.psi for name, report in reports.items()},
        )  # fmt: skip
        yield _labelled(
            "drift_prediction_psi_by_chance", "PSI that 99 of 100 stretches of the training period stay below.",
            ("strategy",),
            {(name,): one.chance_psi for name, one in reports.items() if one.chance_psi is not None},
        )  # fmt: skip
        yield _labelled(
            "drift_prediction_ks", "Kolmogorov-Smirnov distance of the same.", ("strategy",),
            {(name,): report.prediction.ks for name, report in reports.items() if report.prediction.ks is not None},
        )  # fmt: skip
        yield _labelled(
            "drift_feature_psi_max", "Highest PSI of a feature, likewise.", ("strategy",),
            {(name,): report.features[0].psi for name, report in reports.items()},
        )  # fmt: skip
        yield from _feature_drift(reports)
        levels = {name: Counter(one.level for one in report.features) for name, report in reports.items()}
        yield _labelled(
            "drift_features", "Features by what their PSI means: stable, moderate, major.", ("strategy", "level"),
            {(name, level.value): float(counts[level]) for name, counts in levels.items() for level in DriftLevel},
        )  # fmt: skip
        yield _labelled(
            "drift_rows", "Recent rows that were compared.", ("strategy",),
            {(name,): float(report.rows) for name, report in reports.items()},
        )  # fmt: skip

    def _housekeeping(self) -> Iterator[Metric]:
        janitor = self._facts.janitor
        yield _counter("trimmed_entries", "Entries this worker cut as the janitor.", "stream", dict(janitor.trimmed))
        yield _counter("removed_consumers", "Dead consumers this worker removed.", "", janitor.removed)
        yield _labelled(
            "group_behind", "1 for each group that holds up the cut of a stream, said by the janitor of the moment.",
            ("stream", "group"), dict.fromkeys(janitor.behind, 1.0),
        )  # fmt: skip


def _feature_drift(reports: Mapping[str, DriftReport]) -> Iterator[Metric]:
    shown = {
        (name, one.name): one for name, report in reports.items() for one in report.features[:DRIFT_FEATURES_SHOWN]
    }
    yield _labelled(
        "drift_feature_psi", "PSI of a feature, likewise, for the 1,000 of a strategy with the highest.",
        ("strategy", "feature"), {key: one.psi for key, one in shown.items()},
    )  # fmt: skip
    yield _labelled(
        "drift_feature_ks", "Kolmogorov-Smirnov distance of the same features.",
        ("strategy", "feature"), {key: one.ks for key, one in shown.items() if one.ks is not None},
    )  # fmt: skip


def metrics_registry(facts: Facts) -> CollectorRegistry:
    """Return what `/metrics` shows: the worker's own, and memory, processor time and open files of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerMetrics(facts))
    ProcessCollector(registry=registry)
    return registry


def _counter(name: str, what: str, label: str, values: Mapping[str, float] | float) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{_P}{name}", what, labels=[label] if label else None)
    for value, count in values.items() if isinstance(values, Mapping) else [("", values)]:
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_P}{name}", what, value=value)


def _labelled(
    name: str, what: str, labels: Iterable[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{_P}{name}", what, labels=tuple(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative buckets; the last one is their sum, so that they agree while the worker counts on."""
    total, rows = 0, []
    for bound, count in zip([*map(str, BOUNDS), "+Inf"], list(histogram.counts), strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
