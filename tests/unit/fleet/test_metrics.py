import re
import threading
from datetime import date
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contracts import RejectionCode, ServedAs, StandingCandidate, StreamNames
from strategies.analysis.drift import ColumnDrift, DriftReport
from tests.support.serving import NOW, make_active
from tests.support.wire import make_rejection, make_vector
from tests.unit.fleet.test_health import World
from worker.errors import StreamUnavailable
from worker.events import Events
from worker.fleet.drift import DriftWatch
from worker.fleet.health import Liveness
from worker.fleet.janitor import Janitor
from worker.fleet.metrics import DRIFT_FEATURES_SHOWN, WorkerMetrics, metrics_registry
from worker.fleet.status import Backlog, Facts
from worker.serving.intake import RequestStream
from worker.serving.leases import Leases
from worker.serving.shadow import ShadowResult, Shadows
from worker.telemetry import Counters, Timing
from worker.transport.client import connect
from worker.transport.scripts import CommitStatus

CANDIDATES = (
    StandingCandidate(strategy="alpha_baseline", version="v2", part="canary", share=0.05, since=NOW, proven=True),
    StandingCandidate(strategy="alpha_baseline", version="v3", part="shadow", share=0.1, reason="not proven yet"),
)
PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.fixture
def facts():
    """What a worker knows that never reached its server."""
    world, names, client = World(), StreamNames(), connect("redis://127.0.0.1:1", "nobody")
    events = Events(client, names, "w1")
    return Facts(
        worker="w1",
        code_version="1.0",
        counters=Counters(),
        stream=RequestStream(client, client, names, "w1", lease_ms=1000),
        leases=Leases(client, names, "w1"),
        slots=world.slots,
        shadows=Shadows(world.slots, share=1.0, size=1),
        candidates=lambda: CANDIDATES,
        drift=DriftWatch(world.slots, sessions=20, alarm_psi=0.25),
        janitor=Janitor(client, names, "w1", retentions=(), events=events, interval_seconds=1),
        backlog=Backlog(lag=7, pending=3),
        malformed_control_events=lambda: 8,
        outages={"requests": world.outage},
        liveness=Liveness(dict, dict),
        readiness=world.readiness,
    )


def scrape(facts):
    """Return `name{label="value"}` to value, as Prometheus parses it."""
    text = generate_latest(metrics_registry(facts)).decode()
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_outcomes_are_counted_by_code(facts):
    facts.counters.count(make_vector(), CommitStatus.COMMITTED, 1.0)
    facts.counters.count(make_rejection(code=RejectionCode.STALE_SYMBOL), CommitStatus.COMMITTED, 1.0)
    facts.counters.count(make_vector(), CommitStatus.FENCED, 1.0)

    found = scrape(facts)

    assert found["signal_worker_outcomes_total{code=answered}"] == 1
    assert found["signal_worker_outcomes_total{code=stale_symbol}"] == 1
    assert found["signal_worker_outcomes_total{code=deliveries_exhausted}"] == 0
    assert found["signal_worker_outcomes_dropped_total{status=fenced}"] == 1


def test_histograms_are_cumulative_and_agree_with_their_count(facts):
    for total in (0.05, 0.3, 500_000.0):
        facts.counters.measure(Timing(queue_ms=total, compute_ms=0.0, commit_ms=0.0))

    found = scrape(facts)

    assert found["signal_worker_stage_seconds_bucket{le=0.0001}{stage=queue}"] == 1
    assert found["signal_worker_stage_seconds_bucket{le=0.0005}{stage=queue}"] == 2
    assert found["signal_worker_stage_seconds_bucket{le=300.0}{stage=queue}"] == 2
    assert found["signal_worker_stage_seconds_bucket{le=+Inf}{stage=queue}"] == 3
    assert found["signal_worker_stage_seconds_count{stage=queue}"] == 3
    assert found["signal_worker_end_to_end_seconds_count"] == 3
    assert found["signal_worker_end_to_end_seconds_sum"] == pytest.approx(500.00035)


def column(name, psi, ks=0.5):
    return ColumnDrift(name=name, psi=psi, ks=ks, missing=0.0, reference_missing=0.0)


def drifted(**changes):
    day = date(2024, 1, 2)
    known = {"version": "v1", "bundle_sha256": "0" * 64, "snapshot_id": "1" * 64, "first": day, "last": day}
    counted = {"sessions": 20, "symbols": 5, "rows": 100, "chance_psi": 0.6}
    prediction, features = column("prediction", 0.3), (column("A", 2.0), column("B", 0.15), column("C", 0.0))
    return DriftReport(
        **{"strategy": "alpha_baseline", "prediction": prediction, "features": features} | known | counted | changes
    )


def test_drift_is_shown_by_strategy_level_and_feature(facts):
    silent = drifted(chance_psi=None, prediction=column("prediction", 0.0, None), features=(column("A", 1.0, None),))
    facts.drift.reports = {"alpha_baseline": drifted(), "other": silent}

    found = scrape(facts)

    assert found["signal_worker_drift_prediction_psi{strategy=alpha_baseline}"] == 0.3
    assert found["signal_worker_drift_prediction_psi_by_chance{strategy=alpha_baseline}"] == 0.6
    assert "signal_worker_drift_prediction_psi_by_chance{strategy=other}" not in found
    assert found["signal_worker_drift_prediction_ks{strategy=alpha_baseline}"] == 0.5
    assert "signal_worker_drift_prediction_ks{strategy=other}" not in found
    assert found["signal_worker_drift_feature_psi_max{strategy=alpha_baseline}"] == 2.0
    assert found["signal_worker_drift_features{level=major}{strategy=alpha_baseline}"] == 1
    assert found["signal_worker_drift_features{level=moderate}{strategy=alpha_baseline}"] == 1
    assert found["signal_worker_drift_rows{strategy=alpha_baseline}"] == 100
    assert found["signal_worker_drift_feature_psi{feature=A}{strategy=alpha_baseline}"] == 2.0
    assert found["signal_worker_drift_feature_psi{feature=C}{strategy=alpha_baseline}"] == 0.0
    assert found["signal_worker_drift_feature_ks{feature=B}{strategy=alpha_baseline}"] == 0.5
    assert found["signal_worker_drift_feature_psi{feature=A}{strategy=other}"] == 1.0
    assert "signal_worker_drift_feature_ks{feature=A}{strategy=other}" not in found


def test_drift_of_features_keeps_to_the_highest_ones(facts):
    many = tuple(column(f"F{n}", 5000.0 - n) for n in range(DRIFT_FEATURES_SHOWN + 7))
    facts.drift.reports = {"alpha_baseline": drifted(features=many), "other": drifted()}

    found = scrape(facts)

    for gauge in ("psi", "ks"):
        of_features = [name for name in found if name.startswith(f"signal_worker_drift_feature_{gauge}{{")]
        assert len(of_features) == 1000 + 3
        assert f"signal_worker_drift_feature_{gauge}{{feature=F999}}{{strategy=alpha_baseline}}" in of_features
    assert found["signal_worker_drift_features{level=major}{strategy=alpha_baseline}"] == 1007


def test_backlog_deliveries_leases_and_outages_are_shown(facts):
    facts.counters.deliveries["claimed"] += 2
    facts.leases.lost = 4
    facts.stream.trimmed_pending = 6
    facts.leases.hold(["1-0"])
    facts.outages["requests"].away(StreamUnavailable("READONLY", "replica"))

    found = scrape(facts)

    assert found["signal_worker_deliveries_total{kind=claimed}"] == 2
    assert found["signal_worker_deliveries_total{kind=new}"] == 0
    assert found["signal_worker_lease_losses_total"] == 4
    assert found["signal_worker_trimmed_pending_entries_total"] == 6
    assert found["signal_worker_malformed_control_events_total"] == 8
    assert found["signal_worker_in_flight_entries"] == 1
    assert found["signal_worker_lag_entries"] == 7
    assert found["signal_worker_pending_entries"] == 3
    assert found["signal_worker_outages_total{connection=requests}{reason=READONLY}"] == 1
    assert found["signal_worker_ready"] == 0
    assert found["signal_worker_unready_reason{reason=server_away}"] == 1


def test_backlog_that_nobody_knows_is_absent(facts):
    facts.backlog.lag = facts.backlog.pending = None

    found = scrape(facts)

    assert "signal_worker_lag_entries" not in found
    assert "signal_worker_pending_entries" not in found


def test_what_serves_is_shown_by_strategy(facts):
    facts.slots.put(make_active(activation=12))

    found = scrape(facts)

    assert found["signal_worker_model_activation{strategy=alpha_baseline}"] == 12
    assert found["signal_worker_snapshot_last_session_timestamp_seconds"] == 1_362_009_600  # 2013-02-28
    assert found["signal_worker_alive"] == found["signal_worker_ready"] == 1


def test_candidates_and_their_vectors_are_shown_by_part(facts):
    facts.counters.count(make_vector(served_as=ServedAs.CANARY), CommitStatus.COMMITTED, 1.0)
    facts.counters.canary_fallbacks = 3
    facts.shadows.counts[ShadowResult.PUBLISHED] += 2

    found = scrape(facts)

    assert found["signal_worker_vectors_total{served_as=canary}"] == 1
    assert found["signal_worker_vectors_total{served_as=active}"] == 0
    assert found["signal_worker_canary_fallbacks_total"] == 3
    assert found["signal_worker_shadows_total{result=published}"] == 2
    assert found["signal_worker_shadows_total{result=dropped}"] == 0
    assert found["signal_worker_shadow_waiting"] == 0
    assert found["signal_worker_candidates{part=canary}{strategy=alpha_baseline}"] == 1
    assert "signal_worker_candidates{part=shadow}{strategy=alpha_baseline}" not in found


def test_housekeeping_is_shown_by_stream_and_group(facts):
    facts.janitor.trimmed["signals:results"] += 5
    facts.janitor.removed = 2
    facts.janitor.behind = frozenset({("signals:results", "gateway")})

    found = scrape(facts)

    assert found["signal_worker_trimmed_entries_total{stream=signals:results}"] == 5
    assert found["signal_worker_removed_consumers_total"] == 2
    assert found["signal_worker_group_behind{group=gateway}{stream=signals:results}"] == 1


def test_names_and_labels_follow_prometheus_rules(facts):
    families = list(WorkerMetrics(facts).collect())

    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch(r"signal_worker_[a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_milliseconds", "_total", "_count"))
        assert family.type != "histogram" or family.name.endswith("_seconds")
        labels = {name for sample in family.samples for name in sample.labels}
        assert labels <= {"code", "status", "kind", "stage", "le", "connection", "reason", "stream", "group",
                          "strategy", "worker", "version", "served_as", "result", "part", "feature"}  # fmt: skip


def test_scrape_while_the_worker_counts_never_fails(facts):
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            facts.counters.deliveries[f"kind{number % 5000}"] += 1
            facts.counters.measure(Timing(queue_ms=1.0, compute_ms=1.0, commit_ms=1.0))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(20):
            list(WorkerMetrics(facts).collect())
    finally:
        stop.set()
        thread.join()


def test_page_of_metrics_is_what_the_worker_shows(facts):
    rows = re.findall(r"^\| `(signal_worker_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)

    assert [(name, kind, what) for name, kind, _, what in rows] == [
        (family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""), family.type, family.documentation)
        for family in WorkerMetrics(facts).collect()
    ]
