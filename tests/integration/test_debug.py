"""What a person sees who follows one request: the debug lines, and the three programs in one process."""

import json

import pytest
import structlog

from contracts import SignalVector
from tests.support.fleet import Fleet
from tests.support.market import make_panel, xnys
from tests.support.serving import Bench, make_active
from tests.support.world import STRATEGY, SYMBOLS, WRONG, activate_world, build_world, register, served_from
from worker.embedded import Endpoints
from worker.registry.registry import Registry
from worker.serving.pipeline import ServingRules

pytestmark = pytest.mark.timeout(240)


def test_debug_lines_follow_a_request_from_reading_to_commit(valkey_url, streams):
    bench = Bench(valkey_url, streams.names, ServingRules(calendar=xnys()))
    bench.serve(make_panel(SYMBOLS, sessions=120), [make_active(SYMBOLS)])
    streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS), "request_id": "r1", "as_of": "2013-02-01"})
    bench.stream.ensure_group()

    with structlog.testing.capture_logs() as logs:
        bench.take(bench.intake.read())

    lines = {log["event"]: log for log in logs if log["log_level"] == "debug"}
    assert list(lines) == ["entries_read", "request_decoded", "bundle_chosen", "outcome_committed"]
    assert lines["request_decoded"]["request_id"] == "r1"
    assert (lines["bundle_chosen"]["version"], lines["bundle_chosen"]["served_as"]) == ("v1", "active")
    assert lines["outcome_committed"]["status"] == "committed"


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_worker_shows_debug_lines_only_where_they_are_wanted(
    level, valkey_url, database_url, streams, tmp_path, two_versions
):
    activate_world(database_url)
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    settings = {"namespace": streams.names.namespace, "log_level": level, **served_from(two_versions)}
    fleet = Fleet(endpoints, tmp_path, **settings)
    try:
        worker = fleet.worker()
        streams.add(WRONG)
        worker.await_event("request_rejected")
    finally:
        fleet.end()

    shown = {event["event"] for event in worker.events() if event["level"] == "debug"}
    assert shown >= {"activation_plan", "heartbeat_sent", "entries_read"} if level == "DEBUG" else not shown


def test_producer_worker_and_gateway_run_in_one_process(valkey_url, database_url, namespace, tmp_path):
    folder = build_world(tmp_path)
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), folder, namespace=namespace)
    try:
        process = fleet.start(STRATEGY, *SYMBOLS, module="worker.debug")
        code = process.wait()
    finally:
        fleet.end()

    assert code == 0, process.log.read_text()
    done = process.events("debug_done")[-1]
    # The bars are of 2012, so the vector is no longer valid, which the gateway sees.
    assert (done["vectors_taken"], done["positions"]) == ({"expired": 1}, {})
    text = process.log.read_text()
    vector = SignalVector.model_validate(json.JSONDecoder().raw_decode(text[text.rindex("\n{\n") + 1 :])[0])
    assert {signal.symbol for signal in vector.weights} == set(SYMBOLS)


def test_strategy_without_an_active_version_is_one_sentence(valkey_url, database_url, namespace, tmp_path):
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), tmp_path, namespace=namespace)
    process = fleet.start("unheard_of", module="worker.debug")

    assert process.wait() == 1
    assert "no version of unheard_of is active here" in process.log.read_text()
