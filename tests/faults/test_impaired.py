"""Workers that cannot answer, beside one that can: they cost no request its answer and no model its place."""

import contextlib

import pytest

from contracts import GROUP, FleetEventType, RejectionCode
from tests.support.fleet import PATIENCE, Fleet
from tests.support.impaired import Impaired, Plan, build_impaired
from tests.support.probes import ask
from tests.support.world import STRATEGY, SYMBOLS, register
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry

pytestmark = pytest.mark.timeout(180)

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}


def test_workers_impaired_in_six_ways_cost_no_request_what_a_healthy_fleet_gives_it(
    endpoints, database_url, namespace, tmp_path
):
    """The short form of `python -m tests.faults.impaired`: all six at once, beside a single sound one."""
    own = Endpoints(redis_url=endpoints.redis_url, database_url=database_url)
    plan = Plan(seed=1, requests=150, sound=1, at_once=True, burst=75)
    run = Impaired(own, namespace, build_impaired(tmp_path), plan)
    with contextlib.closing(run):
        result = run.run()

    assert result.right, result
    assert result.vectors > 120
    given = {way: left for way, left in result.left.items() if "given" in left}
    assert given.keys() == {"another strategy alone", "an older snapshot"}, result.left


def test_unready_worker_leaves_requests_alone_and_answers_them_after_the_first_activation(
    streams, endpoints, database_url, namespace, two_versions, free_port
):
    own = Endpoints(redis_url=endpoints.redis_url, database_url=database_url)
    fleet = Fleet(own, two_versions, namespace=namespace, health_port=free_port, strategies=STRATEGY)
    with contextlib.ExitStack() as stack, Registry(database_url) as registry:
        stack.callback(fleet.end)
        fleet.start("publish-registry")
        worker = fleet.worker()
        assert "SIGNALS_STRATEGIES has alpha_baseline, which the registry does not know" in ask(free_port, "/readyz")[1]
        assert worker.events("strategy_not_registered")
        waiting = streams.add(REQUEST, times=3)
        (late,) = streams.add(REQUEST | {"deadline": "2013-03-02T11:59:59Z"})

        assert wait_until(streams.rejections, PATIENCE)
        assert [(one.request_id, one.code) for one in streams.rejections()] == [(late, RejectionCode.DEADLINE_EXCEEDED)]
        (group,) = streams.client.xinfo_groups(streams.names.requests)
        assert (group["name"].decode(), group["pending"], group["lag"]) == (GROUP, 0, 4)
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")

        asked = [*waiting, *streams.add(REQUEST)]
        assert wait_until(lambda: len(streams.results()) == len(asked), PATIENCE)

    assert sorted(vector.request_id for vector in streams.results()) == sorted(asked)
    assert [one.request_id for one in streams.rejections()] == [late]
    kinds = [event.type for event in streams.events()]
    assert (kinds.count(FleetEventType.UNREADY), kinds.count(FleetEventType.READY)) == (1, 1)
    assert streams.pending() == 0
