import os
from dataclasses import fields

import pytest

from contracts import GROUP, Rejection, RejectionCode
from contracts.codec import encode
from tests.faults.soak import Round, report
from tests.support.chaos import PEAK_BYTES, SHORT, Chaos, Plan
from tests.support.checker import Ledger
from tests.support.servers import PrivateServers, copy_prepared, short_lived_directory
from tests.support.serving import NOW, Streams
from tests.support.world import STRATEGY, build_world, catalogue, register
from worker.registry.migrations import migrate
from worker.registry.registry import Registry

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

#: What a short run would draw too seldom to be sure of.
RARE = (
    "server back from an older file",
    "replica promoted",
    "server emptied",
    "server killed",
    "group destroyed",
    "requests trimmed, pending ones too",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def start_servers(_prepared_stack):
    """Starts private servers of a family, with an active version."""
    with short_lived_directory() as directory:
        copy_prepared(_prepared_stack, directory)
        started = []

        def start(*, redis_family):
            servers = PrivateServers(directory, redis_family=redis_family)
            started.append(servers)
            migrate(servers.endpoints.database_url)
            with Registry(servers.endpoints.database_url) as registry:
                register(registry, "v1")
                registry.activate(STRATEGY, "v1")
            return servers

        yield start
        for servers in started:
            servers.close()


def run(servers, world, plan):
    chaos = Chaos(servers, world, plan, catalogue(world))
    try:
        return chaos.run()
    finally:
        chaos.close()


@pytest.mark.parametrize(
    ("redis_family", "appendfsync"), [(False, "everysec"), (True, "always")], ids=["valkey", "redis"]
)
def test_each_request_has_exactly_one_outcome_whatever_breaks(start_servers, world, redis_family, appendfsync):
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # noqa: T201 - a failing run is repeated by it

    plan = Plan(seed=seed, requests=1500, faults=24, first=RARE, appendfsync=appendfsync)
    outcome = run(start_servers(redis_family=redis_family), world, plan)

    assert outcome.verdict.holds, f"seed {seed}: {outcome.verdict}, {dict(outcome.faults)}"
    assert sum(outcome.faults.values()) == 24
    assert 0 < outcome.peak_bytes < PEAK_BYTES


@pytest.mark.parametrize(
    ("way", "found"),
    [("acknowledge_first", {"lost"}), ("forget", {"doubled"}), ("die", set())],
    ids=["acknowledge_first", "forget", "right_and_dying"],
)
def test_checker_sees_a_broken_commit(start_servers, world, way, found):
    plan = Plan(
        seed=1,
        requests=400,
        faults=4,
        weights={kind: share for kind, share in SHORT.items() if kind not in RARE},
        module="tests.support.broken_worker",
        verb=(way, "run"),
        failpoints="read=sleep:1@0.01",
        healed_seconds=240.0,
    )

    outcome = run(start_servers(redis_family=False), world, plan)

    verdict = outcome.verdict
    assert {fault for fault in ("lost", "doubled", "wrong", "strange", "pending") if getattr(verdict, fault)} == found
    assert outcome.holds == (not found)
    assert way != "die" or outcome.restarts > outcome.faults["worker killed"]


@pytest.fixture
def judged(valkey_url, namespace):
    """Streams with a group, three requests asked, and their ledger."""
    streams = Streams(valkey_url, namespace)
    streams.client.xgroup_create(streams.names.requests, GROUP, id="0", mkstream=True)
    asked = dict.fromkeys(("first", "second", "third"), "unknown_strategy")
    for name in asked:
        streams.add({"request_id": name})
    return streams, Ledger(streams, asked)


def deliver(streams, *, acknowledge):
    (_, rows), *_ = streams.client.execute_command(
        "XREADGROUP", "GROUP", GROUP, "w", "COUNT", 1, "STREAMS", streams.names.requests, ">"
    )
    if acknowledge:
        streams.client.xack(streams.names.requests, GROUP, rows[0][0])


def reject(streams, request_id, entry_id="*"):
    rejection = Rejection(
        request_id=request_id,
        code=RejectionCode.UNKNOWN_STRATEGY,
        reason="nobody",
        entry_id="1-0",
        rejected_at=NOW,
        deliveries=1,
        worker="w",
        fields={},
    )
    streams.client.xadd(streams.names.rejections, encode(rejection), id=entry_id)


def test_acknowledged_request_without_outcome_is_lost_at_once(judged):
    streams, ledger = judged
    deliver(streams, acknowledge=True)
    deliver(streams, acknowledge=False)

    assert ledger.judge() == {"second", "third"}
    with ledger.forgetting():
        streams.client.xtrim(streams.names.requests, maxlen=0, approximate=False)

    # What was lost before the fault is not excused by it, nor found again by an outcome that comes later.
    assert ledger.excused() == ["second", "third"]
    for name in ("first", "second", "third"):
        reject(streams, name)
    ledger.judge()
    assert ledger.verdict().lost == ("first",)


def test_request_that_outlived_the_fault_is_not_excused(judged):
    streams, ledger = judged
    deliver(streams, acknowledge=False)

    with ledger.forgetting():
        streams.client.xtrim(streams.names.requests, maxlen=2, approximate=False)
    deliver(streams, acknowledge=True)
    ledger.judge()

    assert ledger.excused() == ["first"]
    assert ledger.verdict().lost == ("first", "second", "third")  # none of them has an outcome in the end


def test_outcomes_of_another_leader_are_read_from_their_beginning(judged):
    streams, ledger = judged
    reject(streams, "first", "5-0")
    reject(streams, "second", "6-0")

    with ledger.forgetting():
        streams.client.delete(streams.names.rejections)
        for request_id, entry_id in (("third", "4-0"), ("second", "6-0"), ("first", "7-0")):
            reject(streams, request_id, entry_id)
    reject(streams, "third", "8-0")
    ledger.read()

    verdict = ledger.verdict()
    assert (verdict.lost, verdict.repeated, verdict.doubled) == ((), ("first",), ("third",))


@pytest.mark.parametrize(("peak_bytes", "holds"), [(0, False), (PEAK_BYTES - 1, True), (PEAK_BYTES, False)])
def test_round_passes_only_if_memory_was_seen_and_bounded(peak_bytes, holds):
    counts = dict.fromkeys((field.name for field in fields(Round)), 0)

    one = Round(**counts | {"peak_bytes": peak_bytes, "sent_again": 7, "server": "Valkey", "faults": {}})

    assert one.holds == holds
    assert "700 MB fail the run" in report([one])
    assert "| sent again after a server had forgotten the request | 7 |" in report([one])
