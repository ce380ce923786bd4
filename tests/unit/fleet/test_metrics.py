import re
import threading
from datetime import date

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contracts import Heartbeat, RejectionCode, ServedAs
from strategies.analysis.drift import ColumnDrift, DriftReport
from tests.support.serving import make_active
from tests.support.status import PAGE, make_status, page
from tests.support.wire import make_rejection, make_vector
from worker.errors import StreamUnavailable
from worker.fleet.facts import FACTS, heartbeat_fields
from worker.fleet.metrics import DRIFT_FEATURES_SHOWN, WorkerMetrics, metrics_registry
from worker.serving.shadow import ShadowResult
from worker.telemetry import Timing
from worker.transport.scripts import CommitStatus


@pytest.fixture
def status():
    return make_status()


def scrape(status):
    """Return `name{label="value"}` to value, as Prometheus parses it."""
    text = generate_latest(metrics_registry(status)).decode()
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_outcomes_are_counted_by_code(status):
    status.counters.count(make_vector(), CommitStatus.COMMITTED, 1.0)
    status.counters.count(make_rejection(code=RejectionCode.STALE_SYMBOL), CommitStatus.COMMITTED, 1.0)
    status.counters.count(make_vector(), CommitStatus.FENCED, 1.0)

    found = scrape(status)

    assert found["signal_worker_outcomes_total{code=answered}"] == 1
    assert found["signal_worker_outcomes_total{code=stale_symbol}"] == 1
    assert found["signal_worker_outcomes_total{code=deliveries_exhausted}"] == 0
    assert found["signal_worker_outcomes_dropped_total{status=fenced}"] == 1


def test_histograms_are_cumulative_and_agree_with_their_count(status):
    for total in (0.05, 0.3, 500_000.0):
        status.counters.measure(Timing(queue_ms=total, compute_ms=0.0, commit_ms=0.0))

    found = scrape(status)

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


def test_drift_is_shown_by_strategy_level_and_feature(status):
    silent = drifted(chance_psi=None, prediction=column("prediction", 0.0, None), features=(column("A", 1.0, None),))
    status.drift.reports = {"alpha_baseline": drifted(), "other": silent}

    found = scrape(status)

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


def test_drift_of_features_keeps_to_the_highest_ones(status):
    many = tuple(column(f"F{n}", 5000.0 - n) for n in range(DRIFT_FEATURES_SHOWN + 7))
    status.drift.reports = {"alpha_baseline": drifted(features=many), "other": drifted()}

    found = scrape(status)

    for gauge in ("psi", "ks"):
        of_features = [name for name in found if name.startswith(f"signal_worker_drift_feature_{gauge}{{")]
        assert len(of_features) == 1000 + 3
        assert f"signal_worker_drift_feature_{gauge}{{feature=F999}}{{strategy=alpha_baseline}}" in of_features
    assert found["signal_worker_drift_features{level=major}{strategy=alpha_baseline}"] == 1007


def test_backlog_deliveries_leases_and_outages_are_shown(status):
    status.counters.deliveries["claimed"] += 2
    status.leases.lost = 4
    status.stream.trimmed_pending = 6
    status.leases.add(["1-0"])
    status.outages["requests"].away(StreamUnavailable("READONLY", "replica"))

    found = scrape(status)

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


def test_backlog_that_nobody_knows_is_absent(status):
    status.backlog.lag = status.backlog.pending = None

    found = scrape(status)

    assert "signal_worker_lag_entries" not in found
    assert "signal_worker_pending_entries" not in found


def test_what_serves_is_shown_by_strategy(status):
    status.slots.put(make_active(activation=12))

    found = scrape(status)

    assert found["signal_worker_model_activation{strategy=alpha_baseline}"] == 12
    assert found["signal_worker_snapshot_last_session_timestamp_seconds"] == 1_362_009_600  # 2013-02-28
    assert found["signal_worker_alive"] == found["signal_worker_ready"] == 1


def test_candidates_and_their_vectors_are_shown_by_part(status):
    status.counters.count(make_vector(served_as=ServedAs.CANARY), CommitStatus.COMMITTED, 1.0)
    status.counters.canary_fallbacks = 3
    status.shadows.counts[ShadowResult.PUBLISHED] += 2

    found = scrape(status)

    assert found["signal_worker_vectors_total{served_as=canary}"] == 1
    assert found["signal_worker_vectors_total{served_as=active}"] == 0
    assert found["signal_worker_canary_fallbacks_total"] == 3
    assert found["signal_worker_shadows_total{result=published}"] == 2
    assert found["signal_worker_shadows_total{result=dropped}"] == 0
    assert found["signal_worker_shadow_waiting"] == 0
    assert found["signal_worker_candidates{part=canary}{strategy=alpha_baseline}"] == 1
    assert "signal_worker_candidates{part=shadow}{strategy=alpha_baseline}" not in found


def test_housekeeping_is_shown_by_stream_and_group(status):
    status.janitor.trimmed["signals:results"] += 5
    status.janitor.removed = 2
    status.janitor.behind = frozenset({("signals:results", "gateway")})

    found = scrape(status)

    assert found["signal_worker_trimmed_entries_total{stream=signals:results}"] == 5
    assert found["signal_worker_removed_consumers_total"] == 2
    assert found["signal_worker_group_behind{group=gateway}{stream=signals:results}"] == 1


def test_names_and_labels_follow_prometheus_rules(status):
    families = list(WorkerMetrics(status).collect())

    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch(r"signal_worker_[a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_milliseconds", "_total", "_count"))
        assert family.type != "histogram" or family.name.endswith("_seconds")
        labels = {name for sample in family.samples for name in sample.labels}
        assert labels <= {"code", "status", "kind", "stage", "le", "connection", "reason", "stream", "group",
                          "strategy", "worker", "version", "served_as", "result", "part", "feature"}  # fmt: skip


def test_scrape_while_the_worker_counts_never_fails(status):
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            status.counters.deliveries[f"kind{number % 5000}"] += 1
            status.counters.measure(Timing(queue_ms=1.0, compute_ms=1.0, commit_ms=1.0))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(20):
            list(WorkerMetrics(status).collect())
    finally:
        stop.set()
        thread.join()


def test_page_of_metrics_is_what_the_worker_shows():
    text = PAGE.read_text(encoding="utf-8")

    assert page(text) == text, "python -m tests.support.status writes the table"


def test_facts_are_named_once_and_are_fields_of_the_heartbeat():
    fields, metrics = [fact.field for fact in FACTS if fact.field], [fact.metric for fact in FACTS if fact.metric]

    assert len(set(fields)) == len(fields)
    assert len(set(metrics)) == len(metrics)
    assert set(fields) <= Heartbeat.model_fields.keys()
    assert all(fact.meaning for fact in FACTS if fact.metric)


def test_heartbeat_and_metrics_show_the_same_of_every_fact(status):
    status.counters.count(make_vector(), CommitStatus.COMMITTED, 1.0)
    status.counters.count(make_rejection(code=RejectionCode.STALE_SYMBOL), CommitStatus.COMMITTED, 1.0)
    status.counters.drop(CommitStatus.FENCED)
    status.counters.deliveries["claimed"] += 2

    shown, scraped = heartbeat_fields(status), scrape(status)

    assert (shown["answered"], shown["rejected"], shown["codes"]) == (1, 1, "stale_symbol=1")
    assert (shown["drops"], shown["deliveries"], shown["parts"]) == ("fenced=1", "claimed=2", "active=1")
    assert (shown["lag"], shown["pending"], shown["malformed_control_events"]) == (7, 3, 8)
    assert scraped["signal_worker_outcomes_dropped_total{status=fenced}"] == 1
    assert scraped["signal_worker_deliveries_total{kind=claimed}"] == 2
    assert scraped["signal_worker_vectors_total{served_as=active}"] == 1
    assert (scraped["signal_worker_lag_entries"], scraped["signal_worker_pending_entries"]) == (7, 3)


def test_fact_that_the_server_does_not_know_is_absent(status):
    status.backlog.lag = None

    assert heartbeat_fields(status)["lag"] is None
    assert "signal_worker_lag_entries" not in scrape(status)
