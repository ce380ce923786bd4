import threading

import pytest

from contracts import GROUP, FleetEventType, StreamNames
from contracts.codec import decode
from contracts.control import FleetEvent
from tests.support.fleet import Fleet
from tests.support.serving import open_client, put_hash
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.events import Events
from worker.fleet import janitor as retention
from worker.fleet.janitor import Janitor, JanitorThread, Retention, retentions
from worker.retry import Outage, RetryPolicy
from worker.shutdown import Shutdown
from worker.transport.client import pairs_of

HOUR_MS = 3_600_000


class Keep:
    """Streams with entries of chosen ages, and a janitor that keeps each for an hour."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url, self.names = url, StreamNames(namespace)
        self.client = open_client(url, "test")
        self.stop = threading.Event()

    def add(self, stream: str, *, hours_old: float, sequence: int = 0) -> str:
        seconds, micros = self.client.time()
        milliseconds = int(seconds * 1000 + micros / 1000 - hours_old * HOUR_MS)
        return self.client.xadd(stream, {"strategy": "s"}, id=f"{milliseconds}-{sequence}").decode()

    def janitor(self, worker: str = "w1", *, hours: float = 1.0, interval_seconds: float = 0.001) -> Janitor:
        commands = open_client(self.url, worker)
        kept = ("requests", "results", "rejections", "events", "control", "shadow")
        return Janitor(
            commands,
            self.names,
            worker,
            retentions=retentions(self.names, dict.fromkeys(kept, hours)),
            events=Events(commands, self.names, worker),
            interval_seconds=interval_seconds,
        )

    def sweep(self, janitor: Janitor) -> None:
        self.client.delete(self.names.janitor)
        assert janitor.turn(self.stop)

    def ids(self, stream: str) -> list[str]:
        return [entry_id.decode() for entry_id, _ in self.client.xrange(stream)]

    def read(self, stream: str, group: str, count: int, consumer: str = "c") -> list[str]:
        reply = self.client.execute_command(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", stream, ">"
        )
        return [entry_id.decode() for entry_id, _ in reply[0][1]] if reply else []

    def events(self) -> list[FleetEvent]:
        return [decode(FleetEvent, pairs_of(flat)) for _, flat in self.client.xrange(self.names.events)]


@pytest.fixture
def keep(valkey_url, namespace):
    return Keep(valkey_url, namespace)


@pytest.fixture
def requests(keep):
    keep.client.xgroup_create(keep.names.requests, GROUP, id="0", mkstream=True)
    return keep.names.requests


def test_acknowledged_entries_past_their_age_are_cut(keep, requests):
    old = [keep.add(requests, hours_old=age) for age in (3, 2)]
    young = keep.add(requests, hours_old=0.5)
    keep.client.xack(requests, GROUP, *keep.read(requests, GROUP, 10))
    janitor = keep.janitor()

    keep.sweep(janitor)

    assert keep.ids(requests) == [young]
    assert janitor.trimmed == {requests: len(old)}
    assert not any(event.type is FleetEventType.GROUP_BEHIND for event in keep.events())


def test_pending_entries_are_never_cut(keep, requests):
    first, second, third = (keep.add(requests, hours_old=age) for age in (4, 3, 2))
    keep.read(requests, GROUP, 3)
    keep.client.xack(requests, GROUP, first, third)

    keep.sweep(keep.janitor())

    assert keep.ids(requests) == [second, third]


def test_unread_entries_are_never_cut(keep, requests):
    first, _, third = (keep.add(requests, hours_old=age) for age in (4, 3, 2))
    keep.client.xack(requests, GROUP, *keep.read(requests, GROUP, 2))

    keep.sweep(keep.janitor())

    assert first not in keep.ids(requests)
    assert third in keep.ids(requests)
    assert keep.read(requests, GROUP, 10) == [third]


def test_slowest_of_several_groups_decides(keep):
    results = keep.names.results
    ids = [keep.add(results, hours_old=age) for age in (5, 4, 3, 2)]
    for group, read in (("fast", 4), ("slow", 2)):
        keep.client.xgroup_create(results, group, id="0")
        keep.client.xack(results, group, *keep.read(results, group, read))

    keep.sweep(keep.janitor())

    assert keep.ids(results) == ids[1:]
    assert keep.read(results, "slow", 10) == ids[2:]


def test_stream_without_a_group_is_cut_by_age(keep):
    for stream in (keep.names.results, keep.names.control, keep.names.rejections):
        keep.add(stream, hours_old=2)
    young = keep.add(keep.names.control, hours_old=0.1)

    keep.sweep(keep.janitor())

    assert keep.ids(keep.names.results) == keep.ids(keep.names.rejections) == []
    assert keep.ids(keep.names.control) == [young]


def test_requests_are_kept_while_their_group_is_gone(keep):
    old = keep.add(keep.names.requests, hours_old=2)

    keep.sweep(keep.janitor())

    assert keep.ids(keep.names.requests) == [old]


def test_sequence_numbers_beyond_doubles_are_compared_exactly(keep, requests):
    milliseconds = keep.add(requests, hours_old=2).split("-")[0]
    sequences = (9_007_199_254_740_992, 9_007_199_254_740_993)
    ids = [keep.client.xadd(requests, {"a": "b"}, id=f"{milliseconds}-{sequence}").decode() for sequence in sequences]
    keep.read(requests, GROUP, 10)
    keep.client.xack(requests, GROUP, f"{milliseconds}-0", ids[1])

    keep.sweep(keep.janitor())

    assert keep.ids(requests) == ids


def test_backlog_larger_than_one_call_is_cut_whole(keep, monkeypatch):
    monkeypatch.setattr(retention, "CUT_AT_ONCE", 100)
    for sequence in range(450):
        keep.add(keep.names.results, hours_old=2, sequence=sequence)
    janitor = keep.janitor()

    keep.sweep(janitor)

    assert keep.ids(keep.names.results) == []
    assert janitor.trimmed[keep.names.results] == 450


def test_group_that_fell_behind_is_reported_once_a_change(keep):
    results = keep.names.results
    old = keep.add(results, hours_old=2)
    keep.client.xgroup_create(results, "gateway", id="0")
    one, other = keep.janitor("w1"), keep.janitor("w2")

    for janitor in (one, other, one):
        keep.sweep(janitor)

    assert [event.type for event in keep.events()] == [FleetEventType.GROUP_BEHIND]
    assert "gateway" in keep.events()[0].reason
    assert one.behind == {(results, "gateway")}
    assert keep.ids(results) == [old]

    keep.client.xack(results, "gateway", *keep.read(results, "gateway", 10))
    keep.sweep(other)

    assert [event.type for event in keep.events()] == [FleetEventType.GROUP_BEHIND, FleetEventType.GROUP_CAUGHT_UP]
    assert other.behind == frozenset()


def test_group_without_old_entries_is_not_behind(keep):
    keep.add(keep.names.results, hours_old=0.2)
    keep.client.xgroup_create(keep.names.results, "gateway", id="0")
    janitor = keep.janitor()

    keep.sweep(janitor)

    assert janitor.behind == frozenset()
    assert keep.events() == []


def test_worker_that_lags_behind_on_requests_is_reported(keep, requests):
    keep.add(requests, hours_old=2)
    keep.read(requests, GROUP, 1)
    janitor = keep.janitor()

    keep.sweep(janitor)

    assert janitor.behind == {(requests, GROUP)}


def test_one_worker_at_a_time_has_the_turn(keep):
    one, other = (keep.janitor(name, interval_seconds=60) for name in ("w1", "w2"))

    assert one.turn(keep.stop)
    assert not other.turn(keep.stop)
    assert 0 < keep.client.pttl(keep.names.janitor) <= 54_000


def test_consumer_without_entries_and_heartbeat_is_removed(keep, requests):
    for consumer in ("dead", "alive", "holding", "w1"):
        keep.client.xadd(requests, {"strategy": "s"})
        keep.read(requests, GROUP, 1, consumer)
    for consumer in ("dead", "alive"):
        rows = keep.client.xpending_range(requests, GROUP, "-", "+", 10, consumername=consumer)
        keep.client.xack(requests, GROUP, *[row["message_id"] for row in rows])
    put_hash(keep.client, keep.names.worker("alive"), {"state": "serving"})
    janitor = keep.janitor()

    keep.sweep(janitor)

    left = {row["name"].decode() for row in keep.client.xinfo_consumers(requests, GROUP)}
    assert left == {"alive", "holding", "w1"}
    assert [event.type for event in keep.events()] == [FleetEventType.CONSUMER_REMOVED]
    assert keep.client.xpending(requests, GROUP)["pending"] == 2


def test_removed_consumer_that_was_waiting_reads_on(keep, requests):
    reader = open_client(keep.url, "reader", block_ms=10_000)
    replies: list[object] = []
    command = ("XREADGROUP", "GROUP", GROUP, "waiting", "BLOCK", 10_000, "STREAMS", requests, ">")
    thread = threading.Thread(target=lambda: replies.append(reader.execute_command(*command)))
    thread.start()
    assert wait_until(lambda: _waits(keep, "reader"), 10)

    keep.sweep(keep.janitor())
    added = keep.add(requests, hours_old=0)
    thread.join()

    assert replies[0][0][1][0][0].decode() == added
    rows = keep.client.xpending_range(requests, GROUP, "-", "+", 10)
    assert [row["consumer"] for row in rows] == [b"waiting"]


def _waits(keep: Keep, name: str) -> bool:
    return any(row["name"] == name and row["cmd"] == "xreadgroup" for row in keep.client.client_list())


def test_thread_sweeps_until_stopped(keep):
    keep.add(keep.names.results, hours_old=2)
    janitor = keep.janitor(interval_seconds=0.01)
    retry = RetryPolicy(keep.stop, Outage("janitor"), 0.1)
    shutdown = Shutdown(0)
    thread = JanitorThread(janitor, retry, shutdown, interval_seconds=0.01)

    thread.start()
    assert wait_until(lambda: not keep.ids(keep.names.results), 10)
    shutdown.request()
    thread.join(10)

    assert not thread.is_alive()
    assert thread.error is None


def test_retention_names_every_stream(namespace):
    names = StreamNames(namespace)

    found = retentions(names, {"requests": 1, "results": 2})

    assert found == (
        Retention(stream=names.requests, hours=1, needs_group=GROUP),
        Retention(stream=names.results, hours=2),
    )


def test_worker_process_keeps_house_while_it_serves(valkey_url, database_url, namespace, keep, tmp_path):
    old = keep.add(keep.names.results, hours_old=3)
    young = keep.add(keep.names.results, hours_old=1)
    keep.client.xgroup_create(keep.names.requests, GROUP, id="0", mkstream=True)
    keep.client.xgroup_createconsumer(keep.names.requests, GROUP, "dead")
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    fleet = Fleet(
        endpoints,
        tmp_path,
        namespace=namespace,
        retention_results_hours=2,
        janitor_interval_seconds=0.5,
        worker_name="w",
    )
    try:
        worker = fleet.worker()

        assert worker.await_event("stream_trimmed", stream=keep.names.results)["entries"] == 1
        worker.await_event("consumer_removed", consumer="dead")
        assert old not in keep.ids(keep.names.results)
        assert young in keep.ids(keep.names.results)
        assert wait_until(lambda: keep.client.hget(keep.names.worker("w"), "trimmed") == b"1", 10)
    finally:
        fleet.end()


@pytest.fixture
def full(keep):
    keep.client.config_set("maxmemory", 1)
    yield
    keep.client.config_set("maxmemory", 0)


def test_full_server_is_cut_and_has_room_again(keep, requests, request):
    keep.add(requests, hours_old=3)
    young = keep.add(requests, hours_old=0.5)
    keep.add(keep.names.results, hours_old=3)
    keep.client.xack(requests, GROUP, *keep.read(requests, GROUP, 10))
    late = keep.add(keep.names.shadow, hours_old=2)
    keep.client.xgroup_create(keep.names.shadow, "reader", id="0")
    request.getfixturevalue("full")

    with pytest.raises(StreamUnavailable, match="OOM"):
        keep.janitor().turn(keep.stop)

    assert (keep.ids(requests), keep.ids(keep.names.results)) == ([young], [])
    assert keep.ids(keep.names.shadow) == [late]


def test_report_that_the_server_did_not_take_is_made_by_the_next_turn(keep, requests):
    keep.add(requests, hours_old=3)
    janitor = keep.janitor()
    say, janitor._events.emit = janitor._events.emit, lambda *_, **__: False
    keep.sweep(janitor)
    assert keep.events() == []
    janitor._events.emit = say

    keep.sweep(janitor)

    assert [event.type for event in keep.events()] == [FleetEventType.GROUP_BEHIND]


def test_greatest_id_of_all_stops_no_sweep(keep, requests):
    keep.client.xadd(requests, {"strategy": "s"}, id="18446744073709551615-18446744073709551615")
    keep.client.xack(requests, GROUP, *keep.read(requests, GROUP, 10))
    old = keep.add(keep.names.events, hours_old=2)

    keep.sweep(keep.janitor())

    assert old not in keep.ids(keep.names.events)
