"""What a worker counts, as Prometheus metrics.

Owns: the metrics that the table of facts has not: histograms, those of two labels, what serves, drift.
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

from strategies.analysis.drift import DriftLevel, DriftReport
from worker.fleet.facts import FACTS, Fact
from worker.fleet.status import WorkerStatus
from worker.telemetry import BOUNDS, Histogram

_P = "signal_worker_"
#: Most features of a strategy whose drift is shown, the highest PSI first: a feature set may have thousands, and each
#: is two series of every worker.
DRIFT_FEATURES_SHOWN = 1000


class WorkerMetrics(Collector):
    """Reads the facts anew at each scrape."""

    def __init__(self, status: WorkerStatus) -> None:
        """Take what is counted."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield InfoMetricFamily(
            f"{_P}build",
            "Who this is.",
            value={"worker": self._status.worker, "version": self._status.code_version},
        )
        yield from filter(None, (_of_fact(fact, self._status) for fact in FACTS if fact.metric))
        yield from self._durations()
        yield from self._outages()
        yield from self._serving()
        yield from self._candidates()
        yield from self._drift()
        yield from self._groups_behind()

    def _durations(self) -> Iterator[Metric]:
        counters = self._status.counters
        stages = HistogramMetricFamily(
            f"{_P}stage_seconds", "Time of a published outcome, by stage: queue, compute, commit.", labels=["stage"]
        )
        for stage, histogram in counters.stages.items():
            stages.add_metric([stage], _buckets(histogram), histogram.seconds)
        yield stages
        whole = HistogramMetricFamily(f"{_P}end_to_end_seconds", "Time from a request's XADD to its outcome's.")
        whole.add_metric([], _buckets(counters.end_to_end), counters.end_to_end.seconds)
        yield whole

    def _outages(self) -> Iterator[Metric]:
        outages = CounterMetricFamily(
            f"{_P}outages", "Outages of a server, by connection and error class.", labels=["connection", "reason"]
        )
        for connection, outage in self._status.outages.items():
            for reason, count in dict(outage.reasons).items():
                outages.add_metric([connection, reason], count)
        yield outages

    def _serving(self) -> Iterator[Metric]:
        status = self._status
        reasons = status.readiness.reasons()
        yield _labelled(
            "unready_reason", "1 for each reason why the worker is not ready.", ("reason",),
            {(reason.code,): 1.0 for reason in reasons},
        )  # fmt: skip
        yield _labelled(
            "model_activation", "Number of the activation that serves.", ("strategy",),
            {(name,): float(active.activation) for name, active in status.slots.active.items()},
        )  # fmt: skip
        panel = status.slots.panel
        if panel is not None:
            midnight = datetime.combine(panel.sessions[-1].astype(object), time(), UTC)
            yield _gauge(
                "snapshot_last_session_timestamp_seconds", "Last session of the bars, its midnight in UTC.",
                midnight.timestamp(),
            )  # fmt: skip

    def _candidates(self) -> Iterator[Metric]:
        yield _labelled(
            "candidates", "Versions in testing that compute here, by role.", ("strategy", "part"),
            Counter((one.strategy, one.part.value) for one in self._status.candidates() if one.since is not None),
        )  # fmt: skip

    def _drift(self) -> Iterator[Metric]:
        reports = self._status.drift.reports
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

    def _groups_behind(self) -> Iterator[Metric]:
        yield _labelled(
            "group_behind", "1 for each group that delays the cut of a stream, reported by the janitor of the moment.",
            ("stream", "group"), dict.fromkeys(self._status.janitor.behind, 1.0),
        )  # fmt: skip


def _of_fact(fact: Fact, status: WorkerStatus) -> Metric | None:
    """Return the metric of a fact; None where the server does not know it."""
    value = fact.read(status)
    if value is None:
        return None
    counts = dict.fromkeys(fact.values, 0) | dict(value) if isinstance(value, Mapping) else {"": value}
    family = CounterMetricFamily if fact.kind == "counter" else GaugeMetricFamily
    metric = family(f"{_P}{fact.metric}", fact.meaning, labels=[fact.label] if fact.label else None)
    for name, count in counts.items():
        metric.add_metric([name] if fact.label else [], count)
    return metric


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


def metrics_registry(status: WorkerStatus) -> CollectorRegistry:
    """Return what `/metrics` shows: the worker's own, and memory, processor time and open files of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerMetrics(status))
    ProcessCollector(registry=registry)
    return registry


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
