"""Request streams of their own: each read by its own workers, all with one memory of request ids."""

from datetime import date

import pytest

from contracts import RejectionCode, StreamNames
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_panel
from tests.support.serving import Bench, make_active
from tests.support.world import WRONG, activate_world, served_from
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.events import Events
from worker.fleet.janitor import Janitor, retentions
from worker.operations.pending import Requests
from worker.operations.redrive import Rejections
from worker.serving.pipeline import ServingRules

SYMBOLS = ("AAPL", "IBM", "MSFT")
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM,MSFT", "as_of": "2013-02-01"}
BAD = {"strategy": "alpha_baseline", "symbols": "ZZZZ", "as_of": "2013-02-01"}


@pytest.fixture(scope="module")
def rules():
    return ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))


@pytest.fixture
def workers(valkey_url, namespace, rules):
    """A worker of the common stream, and one of the partition `fast`."""
    panel, active, made = make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), make_active(SYMBOLS), {}
    for partition in ("", "fast"):
        made[partition] = Bench(valkey_url, StreamNames(namespace, partition), rules, name=f"w-{partition or 'common'}")
        made[partition].serve(panel, [active])
    return made


def xadd(streams, partition, fields, entry_id="*"):
    """Add an entry as redis-cli does, and return its id."""
    key = StreamNames(streams.names.namespace, partition).requests
    return streams.client.execute_command(
        "XADD", key, entry_id, *[text for pair in fields.items() for text in pair]
    ).decode()


def test_each_stream_is_read_by_its_own_workers_alone(workers, streams):
    common, fast = xadd(streams, "", REQUEST), xadd(streams, "fast", REQUEST)

    workers["fast"].run_once()
    assert [vector.request_id for vector in streams.results()] == [f"fast:{fast}"]
    workers[""].run_once()

    assert [vector.request_id for vector in streams.results()] == [f"fast:{fast}", common]
    assert StreamNames(streams.names.namespace, "fast").requests == f"{streams.names.namespace}:requests:fast"


def test_request_id_has_one_outcome_over_all_streams(workers, streams):
    for partition in ("", "fast", "fast", ""):
        xadd(streams, partition, REQUEST | {"request_id": "once"})

    for bench in workers.values():
        bench.run_once()

    assert [vector.request_id for vector in streams.results()] == ["once"]
    assert sum(bench.counters.drops["duplicate"] for bench in workers.values()) == 3


def test_entries_of_the_same_id_on_two_streams_are_two_requests(workers, streams):
    for partition in ("", "fast"):
        assert xadd(streams, partition, REQUEST, "7-1") == "7-1"

    for bench in workers.values():
        bench.run_once()

    assert sorted(vector.request_id for vector in streams.results()) == ["7-1", "fast:7-1"]


def test_rejected_request_is_redriven_to_the_stream_that_it_came_on(workers, streams):
    xadd(streams, "fast", BAD)
    workers["fast"].run_once()
    (rejection,) = streams.rejections()
    assert (rejection.code, rejection.partition) == (RejectionCode.UNKNOWN_SYMBOL, "fast")
    rejections = Rejections(streams.client, streams.names, remembered_seconds=60)
    found = rejections.find(rejection.request_id)
    assert found is not None

    rejections.redrive(found)

    assert streams.client.xlen(StreamNames(streams.names.namespace, "fast").requests) == 2
    assert streams.client.exists(streams.names.requests) == 0
    workers["fast"].run_once()
    assert [again.request_id for again in streams.rejections()] == [rejection.request_id]


def test_request_that_waits_on_a_partition_is_found_by_its_id(workers, streams):
    names = StreamNames(streams.names.namespace, "fast")
    workers["fast"].stream.ensure_group()
    entry = xadd(streams, "fast", REQUEST)

    waiting = Requests(streams.client, names).find(f"fast:{entry}").waiting

    assert waiting is not None
    assert waiting.entry_id == entry


def test_each_stream_has_a_janitor_that_cuts_it(workers, streams):
    for partition, bench in workers.items():
        for _ in range(3):
            xadd(streams, partition, REQUEST)
        bench.run_once()
        names = StreamNames(streams.names.namespace, partition)
        events = Events(streams.client, names, "w")
        kept = retentions(names, {"requests": 1e-9})
        janitor = Janitor(streams.client, names, "w", retentions=kept, events=events, interval_seconds=1)

        assert janitor.turn(bench.shutdown.stopping)

        assert streams.client.xlen(names.requests) < 3


@pytest.mark.timeout(180)
def test_worker_process_reads_the_stream_of_its_setting_alone(
    streams, valkey_url, database_url, two_versions, tmp_path
):
    activate_world(database_url)
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    fleet = Fleet(endpoints, tmp_path, namespace=streams.names.namespace, **served_from(two_versions))
    try:
        fleet.worker(worker_name="fast", partition="fast", lease_ms=60_000)
        waiting = xadd(streams, "", WRONG)
        asked = xadd(streams, "fast", WRONG)

        assert wait_until(streams.rejections, PATIENCE)
        assert [(one.request_id, one.worker) for one in streams.rejections()] == [(f"fast:{asked}", "fast")]
        fleet.worker(worker_name="common", lease_ms=60_000)
        assert wait_until(lambda: len(streams.rejections()) == 2, PATIENCE)
    finally:
        fleet.end()

    assert (streams.rejections()[1].request_id, streams.rejections()[1].worker) == (waiting, "common")
