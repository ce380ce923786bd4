import os

import pytest

from tests.support.chaos import Chaos, Plan
from tests.support.checker import check
from tests.support.serving import Streams
from tests.support.world import STRATEGY, build_world, catalogue, register
from worker.lifecycle.migrations import migrate
from worker.lifecycle.registry import Registry

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def servers(private_servers):
    migrate(private_servers.endpoints.database_url)
    with Registry(private_servers.endpoints.database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    return private_servers


def run(servers, world, plan):
    chaos = Chaos(servers, world, plan, catalogue(world))
    try:
        outcome = chaos.run()
    finally:
        chaos.close()
    return outcome, check(Streams(servers.endpoints.redis_url, "signals"), outcome.expected)


def test_each_request_has_exactly_one_outcome_whatever_breaks(servers, world):
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # noqa: T201 - a failing run is repeated by it

    outcome, verdict = run(servers, world, Plan(seed=seed, requests=4000, faults=40))

    assert verdict.holds, f"seed {seed}: {verdict}, {dict(outcome.faults)}"
    assert sum(outcome.faults.values()) == 40


@pytest.mark.parametrize(("way", "fault"), [("acknowledge_first", "lost"), ("forget", "doubled")])
def test_checker_sees_a_broken_commit(servers, world, way, fault):
    plan = Plan(
        seed=1,
        requests=600,
        faults=4,
        module="tests.support.broken_worker",
        verb=(way, "run"),
        failpoints="read=sleep:1@0.01",
        healed_seconds=8.0,
    )

    _, verdict = run(servers, world, plan)

    assert not verdict.holds
    assert getattr(verdict, fault)
