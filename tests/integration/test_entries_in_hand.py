"""What becomes of an entry between its reading and its outcome, when servers, trimming or others come between."""

import threading
import time
from datetime import date

import pytest
import structlog

from contracts import GROUP, RejectionCode
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE
from tests.support.market import make_panel
from tests.support.serving import Bench, make_active, make_limits, open_client
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.serving.pipeline import ServingRules
from worker.serving.request_stream import RequestStream

SYMBOLS = ("AAPL", "IBM", "MSFT")
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM,MSFT", "as_of": "2013-02-01"}
LOST = StreamUnavailable("ConnectionError", "the reply was lost")


@pytest.fixture(scope="module")
def rules():
    return ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))


@pytest.fixture(scope="module")
def serving():
    return make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), make_active(SYMBOLS)


@pytest.fixture
def make_bench(valkey_url, streams, rules, serving):
    def make(name="w1", stream=None, **limits):
        bench = Bench(valkey_url, streams.names, rules, name=name, limits=make_limits(**limits), stream=stream)
        bench.serve(serving[0], [serving[1]])
        bench.stream.ensure_group()
        return bench

    return make


@pytest.fixture
def bench(make_bench):
    return make_bench()


def trim(streams):
    streams.client.xtrim(streams.names.requests, maxlen=0, approximate=False)


def test_entry_trimmed_while_it_is_computed_is_answered_all_the_same(bench, streams):
    streams.add(REQUEST)
    entries = bench.stream.read(10, 10)
    bench.leases.add([entries[0].id])
    trim(streams)

    bench.leases.renew()
    bench.take(entries)

    assert len(streams.results()) == 1
    assert streams.pending() == 0


def test_entry_trimmed_before_it_is_nacked_is_counted(bench, streams):
    streams.add(REQUEST)
    (entry,) = bench.stream.read(10, 10)
    trim(streams)

    assert not bench.stream.nack(entry, streams.names.request("one"), pause_ms=0, tried=False)

    assert bench.stream.trimmed_pending == 1
    assert streams.pending() == 0


def test_nacking_never_shortens_the_memory_of_an_outcome(bench, streams):
    streams.add(REQUEST | {"request_id": "one"}, times=2)
    first, again = bench.stream.read(10, 10)
    key = streams.names.request("one")
    bench.take([first])
    streams.client.pexpire(key, 7 * 24 * 3_600_000)

    bench.stream.nack(again, key, pause_ms=0, tried=True, error="kaboom")

    assert streams.client.pttl(key) > 6 * 24 * 3_600_000
    assert streams.client.hget(key, "last_error") == b"kaboom"


def test_key_of_another_type_under_an_id_keeps_no_entry_from_its_outcome(bench, streams):
    streams.client.set(streams.names.request("one"), "not a hash", ex=600)
    streams.add(REQUEST | {"request_id": "one"})
    streams.add(REQUEST)

    bench.run_once()

    assert len(streams.results()) == 2


def test_resuming_takes_nothing_from_another_worker(make_bench, streams):
    restarted, other = make_bench("w1"), make_bench("w2")
    streams.add(REQUEST, times=2)
    restarted.stream.read(10, 10)
    resuming = restarted.stream.recover(count_again=True)
    assert next(resuming).deliveries == 2
    claimed = {}

    def claim_both():
        entry = other.stream.claim()
        claimed.update({entry.id: entry.deliveries} if entry else {})
        return len(claimed) == 2

    assert wait_until(claim_both, PATIENCE)

    assert list(resuming) == []
    assert streams.deliveries() == claimed


def test_lost_replies_while_resuming_cost_one_delivery(bench, streams):
    streams.add(REQUEST)
    bench.stream.read(10, 10)
    original = bench.stream._commands.run

    def lose_the_reply(script):
        original(script)
        raise LOST

    bench.stream._commands.run = lose_the_reply
    for _ in range(4):
        with pytest.raises(StreamUnavailable):
            list(bench.stream.recover(count_again=True))
    bench.stream._commands.run = original
    (entry,) = bench.stream.recover(count_again=True)

    assert entry.deliveries == 2


def test_leaving_does_not_discard_what_was_just_delivered(bench, streams, monkeypatch):
    # By an overlapping process of the same name, after this one had looked at what is pending.
    monkeypatch.setattr(bench.stream._commands, "xpending_range", lambda *_, **__: [])
    streams.add(REQUEST)
    bench.stream.read(10, 10)

    bench.stream.leave()

    assert streams.pending() == 1


def test_connections_to_two_servers_end_in_no_hot_loop(valkey_url, streams, make_bench):
    elsewhere = open_client(
        valkey_url.rpartition("/")[0] + "/1" if valkey_url.count("/") > 2 else f"{valkey_url}/1", "x"
    )
    split = RequestStream(elsewhere, open_client(valkey_url, "y"), streams.names, "w1", lease_ms=300)
    bench = make_bench(stream=split)
    runner = threading.Thread(target=bench.consumer.run, daemon=True)

    with structlog.testing.capture_logs() as logs:
        runner.start()
        assert wait_until(lambda: bench.outage.reasons["NOGROUP"] == 1, PATIENCE)
        bench.shutdown.stopping.wait(1.0)
        bench.shutdown.request()
        runner.join(PATIENCE)

    assert not runner.is_alive()
    assert [log for log in logs if log["event"] == "group_recreated"] == []
    assert len([log for log in logs if log["event"] == "server_away"]) == 1


def test_stopping_worker_finishes_over_a_lost_connection(bench, streams):
    streams.add(REQUEST, times=3)
    entries = bench.stream.read(10, 10)
    original, failures = bench.results.publish, [LOST, LOST]

    def commit(*said, **how):
        if failures:
            raise failures.pop()
        return original(*said, **how)

    bench.results.publish = commit
    bench.shutdown.request()
    bench.take(entries)

    assert len(streams.results()) == 3
    assert streams.pending() == 0


def test_server_unavailable_while_stopping_ends_the_reading_quietly(bench):
    bench.stream.read = lambda *_: (_ for _ in ()).throw(LOST)
    threading.Timer(0.2, bench.shutdown.request).start()

    bench.consumer.run()  # returns

    assert bench.outage.lasting


def test_what_was_taken_up_again_is_not_left_in_flight_quietly(bench, streams):
    streams.add(REQUEST)
    bench.stream.read(10, 10)

    def commit(*_, **__):
        bench.shutdown.request()
        bench.shutdown.force()
        raise LOST

    bench.results.publish = commit

    with pytest.raises(StreamUnavailable):  # so that the worker gives back what is pending under its name
        bench.consumer.run()


def test_what_is_slower_than_the_time_left_is_nacked(make_bench, streams):
    bench = make_bench(lease_ms=60_000)
    streams.add(REQUEST, times=3)
    entries = bench.stream.read(10, 10)
    bench.intake.slowest_seconds = 6.0
    bench.shutdown.request()

    bench.take(entries)

    assert streams.results() == []
    heir = make_bench("heir", lease_ms=60_000)
    assert [heir.stream.claim().deliveries for _ in range(3)] == [1, 1, 1]


def test_time_left_counts_from_the_order_to_leave(make_bench, streams):
    bench = make_bench(lease_ms=60_000)
    streams.add(REQUEST)
    entries = bench.stream.read(10, 10)
    bench.shutdown.grace_seconds = 0.0  # asked to leave long ago, before this batch was read
    bench.shutdown.request()

    bench.take(entries)

    assert streams.results() == []
    assert list(streams.deliveries().values()) == [0]


def test_nacked_entries_and_claimed_by_others_are_forgotten(make_bench, streams):
    bench, other = make_bench("w1", lease_ms=100), make_bench("w2", lease_ms=100)
    for _ in range(5):
        streams.add(REQUEST)
        (entry,) = bench.stream.read(10, 10)
        bench.intake.nack(entry, tried=False)
        assert wait_until(lambda: other.run_once() or streams.pending() == 0, PATIENCE)
    remembered = len(bench.intake.nacked)

    assert wait_until(lambda: time.monotonic() - max(bench.intake.nacked.values()) > 0.2, PATIENCE)
    streams.add(REQUEST)
    (entry,) = bench.stream.read(10, 10)
    bench.intake.nack(entry, tried=False)

    assert remembered >= 1
    assert list(bench.intake.nacked) == [entry.id]


def test_entry_is_nacked_after_the_renewal_that_names_it(bench, streams):
    streams.add(REQUEST)
    (entry,) = bench.stream.read(10, 10)
    order, renewing, go_on = [], threading.Event(), threading.Event()

    def renew(_entry_ids):
        renewing.set()
        assert go_on.wait(PATIENCE)
        order.append("renewed")
        return ()

    bench.leases._renew = renew
    bench.stream.nack = lambda *_, **__: order.append("given back")
    bench.leases.add([entry.id])
    renewal = threading.Thread(target=bench.leases.renew)
    renewal.start()
    assert renewing.wait(PATIENCE)
    giving = threading.Thread(target=lambda: bench.intake.nack(entry, tried=False))
    giving.start()
    assert wait_until(lambda: bench.leases.in_flight() == frozenset(), PATIENCE)
    go_on.set()
    for thread in (renewal, giving):
        thread.join(PATIENCE)

    assert order == ["renewed", "given back"]


def test_many_overdue_entries_are_claimed_one_after_the_other(make_bench, streams):
    dead, bench = make_bench("dead", lease_ms=100), make_bench("w1", lease_ms=100)
    entries = streams.add(REQUEST, times=40)
    dead.stream.read(100, 10)
    claimed = []

    def claim_more():
        entry = bench.stream.claim()
        claimed.extend([entry.id] if entry else [])
        bench.leases.add([entry.id] if entry else [])
        bench.leases.renew()
        return len(claimed) >= 40

    assert wait_until(claim_more, PATIENCE)
    # The server looks at ten entries a call: without its cursor the ones in hand would hide those behind them.
    assert claimed == entries


def test_deliveries_exhausted_is_reported_where_nothing_was_remembered(make_bench, streams):
    bench = make_bench(max_deliveries=1)
    streams.add(REQUEST)
    (entry,) = bench.stream.read(10, 10)
    streams.client.xclaim(streams.names.requests, GROUP, "dead", 0, [entry.id], retrycount=2)

    assert wait_until(lambda: bench.run_once() or streams.pending() == 0, PATIENCE)

    (rejection,) = streams.rejections()
    assert rejection.code is RejectionCode.DELIVERIES_EXHAUSTED
    assert "none was recorded" in rejection.reason
