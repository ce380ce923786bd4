"""The access rules of docs/gateway.md on a real server: who may publish vectors, and that each role can do its work."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from contracts import StreamNames
from contracts.codec import encode
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_panel
from tests.support.serving import Bench, Streams, make_active
from tests.support.wire import make_vector
from tests.support.world import STRATEGY, build_world, register
from worker.client import Disposition, Gateway, GatewayOptions, SignalClient
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.registry.registry import Registry
from worker.serving.pipeline import ServingRules
from worker.transport.client import connect
from worker.transport.requirements import StreamRole, stream_findings

GUIDE = Path(__file__).parents[2] / "docs" / "gateway.md"
PASSWORD = uuid4().hex


def logged_in(url, user):
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))


@pytest.fixture
def role(streams, valkey_url, namespace):
    """Log in as a role of the guide, in this test's namespace."""
    made = []

    def login(name):
        (rules,) = re.findall(rf"^\| `{name}` \| `(.*)` \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
        user, words = f"{name}-{namespace}", rules.replace("~signals:", f"~{namespace}:").split()
        streams.client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *words)
        made.append(user)
        return logged_in(valkey_url, user)

    yield login
    for user in made:
        streams.client.execute_command("ACL", "DELUSER", user)


@pytest.mark.parametrize("name", ["worker", "producer", "gateway"])
def test_rules_of_the_guide_are_enough_for_each_role(role, namespace, name):
    with connect(role(name), "test") as client:
        findings = stream_findings(client, StreamNames(namespace), StreamRole(name))

    assert [finding for finding in findings if finding.met is False] == []


def test_only_workers_publish_vectors(streams, role, namespace):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    streams.client.xadd(streams.names.results, encode(make_vector(valid_until=tomorrow)))
    applied, desk, producer = [], role("gateway"), role("producer")

    with (
        SignalClient(desk, namespace=namespace) as client,
        Gateway(client, "desk", applied.append, options=GatewayOptions(block_ms=20, claim_after_ms=10)) as gateway,
    ):
        assert gateway.run_once() == [Disposition.APPLIED]
    for url in (desk, producer):
        forger = Streams(url, namespace)
        for stream in (streams.names.results, streams.names.probes):
            with pytest.raises(StreamUnavailable, match=r"(?i)noperm|permission"):
                forger.client.xadd(stream, encode(make_vector(request_id="forged")))

    assert len(streams.results()) == 1
    streams.client.delete(f"{namespace}:gateway:desk:book:alpha_baseline")


def test_worker_and_producer_work_under_their_roles(streams, role, namespace, database_url, tmp_path):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    endpoints = Endpoints(redis_url=role("worker"), database_url=database_url)
    fleet = Fleet(endpoints, build_world(tmp_path), namespace=namespace)
    try:
        fleet.worker()
        with SignalClient(role("producer"), namespace=namespace) as client:
            asked = [client.submit(STRATEGY, as_of="2013-12-24", purpose=purpose) for purpose in (None, "probe")]
            answers = [client.result(request_id, timeout=PATIENCE) for request_id in asked]
        assert wait_until(lambda: streams.pending() == 0, PATIENCE)
    finally:
        fleet.end()

    assert [answer.purpose for answer in answers] == ["trade", "probe"]


def test_asker_of_a_partition_cannot_have_anything_traded(valkey_url, streams, role, namespace):
    rules = ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))
    bench = Bench(valkey_url, StreamNames(namespace, "ask"), rules)
    bench.serve(make_panel(("AAPL", "IBM"), sessions=120, first=date(2012, 9, 5)), [make_active(("AAPL", "IBM"))])
    asker = Streams(role("asker"), namespace)
    request = {"strategy": STRATEGY, "symbols": "AAPL,IBM", "as_of": "2013-02-01", "producer": "rebalance"}
    with pytest.raises(StreamUnavailable, match=r"(?i)noperm|permission"):
        asker.add(request)
    asker.client.xadd(bench.names.requests, request)

    bench.run_once()

    (vector,) = streams.results()
    assert (vector.partition, vector.purpose) == ("ask", "trade")
    applied = []
    with (
        SignalClient(valkey_url, namespace=namespace) as client,
        Gateway(client, "desk", applied.append, options=GatewayOptions(partitions=frozenset({""}))) as gateway,
    ):
        assert gateway.run_once() == [Disposition.IGNORED]
    assert applied == []
