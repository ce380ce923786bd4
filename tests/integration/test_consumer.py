import dataclasses
import threading
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import structlog

from contracts import GROUP, RejectionCode
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE
from tests.support.market import make_panel
from tests.support.proxy import Proxy
from tests.support.serving import NOW, Bench, make_active, make_limits
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.serving.failpoints import Step
from worker.serving.pipeline import ServingRules
from worker.transport import client as server

SYMBOLS = ("AAPL", "BF.B", "GOOG", "IBM", "MSFT", "NEW")
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM,MSFT", "as_of": "2013-02-01"}


@pytest.fixture(scope="module")
def rules():
    return ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))


@pytest.fixture(scope="module")
def panel():
    """120 sessions to 2013-02-28; NEW is listed 20 sessions before the end, BF.B's bars end 2 sessions before it."""
    whole = make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5), starts={"NEW": 100})
    row = whole.symbols.index("BF.B")
    fields = {name: values.copy() for name, values in whole.fields.items()}
    for values in fields.values():
        values[row, -2:] = np.nan
    return dataclasses.replace(whole, fields=fields)


@pytest.fixture(scope="module")
def active():
    return make_active(SYMBOLS)


@pytest.fixture
def bench(valkey_url, streams, rules, panel, active):
    made = Bench(valkey_url, streams.names, rules)
    made.serve(panel, [active])
    return made


def test_request_typed_by_hand_becomes_one_vector(bench, streams):
    (entry,) = streams.add(REQUEST)

    bench.run_once()

    (vector,) = streams.results()
    assert vector.request_id == entry
    assert vector.as_of == date(2013, 2, 1)
    assert sorted(signal.symbol for signal in vector.weights) == ["AAPL", "IBM", "MSFT"]
    assert [signal.rank for signal in vector.weights] == [1, 2, 3]
    assert [signal.target_weight for signal in vector.weights] == [1.0, 0.0, -1.0]
    assert (vector.requested_top_n, vector.used_top_n) == (3, 1)
    assert streams.rejections() == []
    assert streams.pending() == 0


def test_entries_added_before_the_first_worker_are_answered(bench, streams):
    streams.add(REQUEST, times=3)

    bench.run_once()

    assert len(streams.results()) == 3


def test_universe_is_answered_and_names_who_was_left_out(bench, streams):
    streams.add({"strategy": "alpha_baseline", "as_of": "2013-02-28"})

    bench.run_once()

    (vector,) = streams.results()
    assert {excluded.symbol: excluded.code for excluded in vector.excluded} == {
        "BF.B": "stale_symbol",
        "NEW": "history_too_short",
    }
    assert len(vector.weights) == 4


@pytest.mark.parametrize(
    ("fields", "code", "value"),
    [
        ({"strategy": "alpha_baselin"}, RejectionCode.UNKNOWN_STRATEGY, "alpha_baselin"),
        ({"strategy": "dormant"}, RejectionCode.NO_ACTIVE_MODEL, "dormant"),
        ({"symbols": "AAPL,ZZZZ"}, RejectionCode.UNKNOWN_SYMBOL, "ZZZZ"),
        ({"symbols": "Aapl"}, RejectionCode.UNKNOWN_SYMBOL, "Aapl"),
        ({"symbols": ""}, RejectionCode.EMPTY_SYMBOLS, "''"),
        ({"symbols": "AAPL,AAPL"}, RejectionCode.DUPLICATE_SYMBOLS, "AAPL"),
        ({"symbols": ",".join(f"S{i}" for i in range(5001))}, RejectionCode.TOO_MANY_SYMBOLS, "5001"),
        ({"as_of": "someday"}, RejectionCode.MALFORMED_AS_OF, "someday"),
        ({"as_of": "2013-03-04"}, RejectionCode.AS_OF_IN_FUTURE, "2013-03-04"),
        ({"as_of": "2012-09-04"}, RejectionCode.AS_OF_BEFORE_DATA, "2012-09-04"),
        ({"as_of": "1812-01-01"}, RejectionCode.AS_OF_OUTSIDE_CALENDAR, "1812-01-01"),
        ({"as_of": "2013-03-01"}, RejectionCode.STALE_SNAPSHOT, "2013-03-01"),
        ({"symbols": "AAPL,BF.B", "as_of": "2013-02-28"}, RejectionCode.STALE_SYMBOL, "BF.B (2)"),
        ({"symbols": "AAPL,NEW", "as_of": "2013-02-28"}, RejectionCode.HISTORY_TOO_SHORT, "NEW (20)"),
        (
            {"symbols": "BF.B", "as_of": "2013-02-28", "on_ineligible": "exclude"},
            RejectionCode.NOTHING_TO_PRICE,
            "BF.B",
        ),
        ({"top_n": "0", "bottom_n": "0"}, RejectionCode.INFEASIBLE_CONSTRUCTION, "0"),
        ({"symbol": "AAPL"}, RejectionCode.UNKNOWN_FIELD, "did you mean symbols"),
        ({"v": "7"}, RejectionCode.UNSUPPORTED_VERSION, "'7'"),
        ({"deadline": "2013-03-02T11:59:59Z"}, RejectionCode.DEADLINE_EXCEEDED, "2013-03-02T11:59:59"),
        ({b"symbols": b"\xff\xfe"}, RejectionCode.MALFORMED_REQUEST, "UTF-8"),
        ({"symbols": "A" * 1_000_000}, RejectionCode.ENTRY_TOO_LARGE, "262144"),
    ],
)
def test_bad_request_is_rejected_and_its_neighbours_answered(bench, streams, fields, code, value):
    good = REQUEST
    bench.slots.set_registered(frozenset({"alpha_baseline", "dormant"}))
    raw = {key if isinstance(key, bytes) else key.encode(): val for key, val in REQUEST.items()}
    raw |= {key if isinstance(key, bytes) else key.encode(): val for key, val in fields.items()}
    streams.add(good, times=2)
    (bad,) = streams.add(raw)
    streams.add(good, times=2)

    bench.run_once()

    (rejection,) = streams.rejections()
    assert rejection.code is code
    assert value in rejection.reason
    assert rejection.entry_id == bad
    assert len(streams.results()) == 4
    assert streams.pending() == 0


def test_rejection_carries_the_fields_as_they_came(bench, streams):
    streams.add({b"strategy": b"alpha_baseline", b"symbols": b"\xff", b"note": b"x" * 5000})

    bench.run_once()

    (rejection,) = streams.rejections()
    assert rejection.fields["symbols"] == "\\xff"
    assert rejection.fields["note"].endswith("(5000 bytes)")


def test_missing_snapshot_is_a_rejection_of_its_own(valkey_url, streams, rules, active):
    bench = Bench(valkey_url, streams.names, rules)
    bench.serve(None, [active])
    streams.add(REQUEST)

    bench.run_once()

    assert [rejection.code for rejection in streams.rejections()] == [RejectionCode.MISSING_SNAPSHOT]


def test_strategy_of_other_workers_is_a_rejection_of_its_own(valkey_url, streams, rules, active):
    bench = Bench(valkey_url, streams.names, rules, served=("alpha_baseline",))
    bench.serve(None, [active], known=["dormant"])
    streams.add(REQUEST | {"strategy": "dormant"})

    bench.run_once()

    (rejection,) = streams.rejections()
    assert rejection.code is RejectionCode.STRATEGY_NOT_SERVED
    assert "strategy dormant is not served here, only alpha_baseline" in rejection.reason


def test_same_request_id_gets_one_outcome_however_often_it_is_added(bench, streams):
    streams.add(REQUEST | {"request_id": "once"}, times=5)

    bench.run_once()

    assert [vector.request_id for vector in streams.results()] == ["once"]
    assert streams.pending() == 0
    assert bench.counters.dropped == 4


def test_id_taken_for_two_questions_is_counted_and_logged_and_the_first_one_is_kept(bench, streams):
    streams.add({**REQUEST, "request_id": "taken"})
    streams.add({**REQUEST, "request_id": "taken", "symbols": "AAPL"})

    with structlog.testing.capture_logs() as logs:
        bench.run_once()

    (vector,) = streams.results()
    assert {signal.symbol for signal in vector.weights} == {"AAPL", "IBM", "MSFT"}
    assert bench.counters.drops == {"conflict": 1}
    assert [log["log_level"] for log in logs if log["event"] == "request_id_taken_twice"] == ["warning"]


def test_request_sent_again_with_another_deadline_is_no_conflict(bench, streams):
    streams.add({**REQUEST, "request_id": "again", "deadline": "2099-01-01T00:00:00Z"})
    streams.add({"request_id": "again", "deadline": "2099-01-02T00:00:00Z", **dict(reversed(REQUEST.items()))})

    bench.run_once()

    assert bench.counters.drops == {"duplicate": 1}


def test_rejected_request_id_is_not_answered_later(bench, streams):
    streams.add(REQUEST | {"request_id": "once", "symbols": "ZZZZ"})
    bench.run_once()
    streams.add(REQUEST | {"request_id": "once"})

    bench.run_once()

    assert streams.results() == []
    assert len(streams.rejections()) == 1


def test_entry_of_a_dead_worker_is_claimed_and_answered(valkey_url, bench, streams, rules):
    bench.stream.ensure_group()
    streams.add(REQUEST, times=3)
    Bench(valkey_url, streams.names, rules, name="dead").stream.read(10, 10)
    assert streams.pending() == 3

    assert wait_until(lambda: bench.run_once() or streams.pending() == 0, PATIENCE)

    assert len(streams.results()) == 3
    assert {vector.deliveries for vector in streams.results()} == {2}


def test_entry_of_a_dead_worker_is_claimed_while_a_read_would_block_on(valkey_url, streams, rules, panel, active):
    bench = Bench(valkey_url, streams.names, rules, limits=make_limits(block_ms=60_000, claim_interval_ms=100))
    bench.serve(panel, [active])
    bench.stream.ensure_group()
    streams.add(REQUEST)
    Bench(valkey_url, streams.names, rules, name="dead").stream.read(10, 10)

    runner = threading.Thread(target=bench.consumer.run, daemon=True)
    runner.start()
    answered = wait_until(lambda: len(streams.results()) == 1, PATIENCE)
    bench.shutdown.request()
    runner.join(PATIENCE)

    assert answered


def test_entries_trimmed_while_pending_at_a_dead_worker_are_counted(valkey_url, bench, streams, rules):
    bench.stream.ensure_group()
    streams.add(REQUEST, times=3)
    Bench(valkey_url, streams.names, rules, name="dead").stream.read(10, 10)
    streams.client.xtrim(streams.names.requests, maxlen=1, approximate=False)

    assert wait_until(lambda: bench.run_once() or streams.pending() == 0, PATIENCE)

    assert bench.stream.trimmed_pending == 2
    assert len(streams.results()) == 1


def test_own_entries_trimmed_while_the_worker_was_absent_are_counted(bench, streams):
    bench.stream.ensure_group()
    streams.add(REQUEST, times=3)
    bench.stream.read(10, 10)
    streams.client.xtrim(streams.names.requests, maxlen=1, approximate=False)

    bench.run_once()

    assert bench.stream.trimmed_pending == 2
    assert len(streams.results()) == 1
    assert streams.pending() == 0


def test_woken_worker_cannot_publish_what_another_took_over(valkey_url, bench, streams, rules, panel, active):
    bench.stream.ensure_group()
    streams.add(REQUEST)
    sleeper = Bench(valkey_url, streams.names, rules, name="sleeper")
    sleeper.serve(panel, [active])
    entries = sleeper.stream.read(10, 10)
    streams.client.xclaim(streams.names.requests, GROUP, "thief", 0, [entries[0].id])

    sleeper.take(entries)

    assert streams.results() == []
    assert sleeper.counters.dropped == 1
    assert streams.pending() == 1


def test_lease_is_renewed_only_while_owned(bench, streams):
    bench.stream.ensure_group()
    streams.add(REQUEST, times=2)
    mine, stolen = bench.stream.read(10, 10)
    bench.leases.add([mine.id, stolen.id])
    streams.client.xclaim(streams.names.requests, GROUP, "thief", 0, [stolen.id])

    bench.leases.renew()

    assert bench.leases.in_flight() == {mine.id}
    assert bench.leases.lost == 1
    owners = {
        row["message_id"].decode(): row["consumer"].decode()
        for row in streams.client.xpending_range(streams.names.requests, GROUP, min="-", max="+", count=10)
    }
    assert owners == {mine.id: "w1", stolen.id: "thief"}
    assert streams.deliveries()[mine.id] == 1


def test_restarted_worker_resumes_its_own_entries_first(bench, streams):
    bench.stream.ensure_group()
    (first,) = streams.add(REQUEST)
    bench.stream.read(10, 10)

    recovered = list(bench.stream.recover(count_again=True))

    assert [(entry.id, entry.deliveries) for entry in recovered] == [(first, 2)]
    assert dict(recovered[0].pairs)[b"strategy"] == b"alpha_baseline"


def test_reply_lost_in_reading_costs_no_delivery(bench, streams):
    bench.stream.ensure_group()
    streams.add(REQUEST)
    bench.stream.read(10, 10)

    (entry,) = bench.stream.recover()

    assert entry.deliveries == 1
    assert list(streams.deliveries().values()) == [1]


def test_request_that_raises_is_retried_alone_until_deliveries_run_out(valkey_url, streams, rules, panel, active):
    bench = Bench(valkey_url, streams.names, rules, limits=make_limits(max_deliveries=3))
    bench.serve(panel, [active])
    streams.add(REQUEST, times=2)
    streams.add(REQUEST | {"request_id": "poison"})
    streams.add(REQUEST, times=2)
    original = bench.answerer.answer

    def explode(request, entry, **when):
        if request.request_id == "poison":
            raise RuntimeError("kaboom")
        return original(request, entry, **when)

    bench.answerer.answer = explode

    assert wait_until(lambda: bench.run_once() or streams.pending() == 0, PATIENCE)

    assert len(streams.results()) == 4
    (rejection,) = streams.rejections()
    assert rejection.code is RejectionCode.DELIVERIES_EXHAUSTED
    assert rejection.request_id == "poison"
    assert "tried 3 times" in rejection.reason
    assert "RuntimeError: kaboom" in rejection.reason


def test_pauses_between_tries_grow_up_to_the_lease_and_differ(valkey_url, streams, rules, panel, active):
    bench = Bench(valkey_url, streams.names, rules, limits=make_limits(max_deliveries=6, retry_pause_ms=100))
    bench.serve(panel, [active])
    pauses = []
    nack = bench.stream.nack

    def note(entry, key, *, pause_ms, **how):
        pauses.append((entry.deliveries, pause_ms))
        return nack(entry, key, pause_ms=0, **how)

    bench.stream.nack = note
    bench.answerer.answer = lambda *_, **__: 1 / 0
    streams.add(REQUEST, times=20)

    assert wait_until(lambda: bench.run_once() or streams.pending() == 0, PATIENCE)

    for deliveries, longest in enumerate((100, 200, 300, 300), start=1):
        found = {pause_ms for tried, pause_ms in pauses if tried == deliveries}
        assert longest / 2 <= min(found) <= max(found) <= longest
        assert len(found) > 1


def test_repeated_commit_is_a_duplicate(bench, streams):
    bench.stream.ensure_group()
    streams.add(REQUEST)
    (entry,) = bench.stream.read(10, 10)
    answered = bench.processor.process(entry)

    first = bench.results.publish(entry, answered.vector)
    second = bench.results.publish(entry, answered.vector)

    assert (first.status, second.status) == ("committed", "duplicate")
    assert first.outcome_id == second.outcome_id
    assert len(streams.results()) == 1


def test_deadline_passed_at_publication_is_no_vector(bench, streams):
    # The worker's clock stands before the deadline, the server's long after it.
    streams.add(REQUEST | {"deadline": "2013-03-02T12:00:01Z"})

    bench.run_once()

    assert streams.results() == []
    assert [rejection.code for rejection in streams.rejections()] == [RejectionCode.DEADLINE_EXCEEDED]


def test_worker_whose_clock_is_ahead_gives_no_living_request_up(valkey_url, streams, panel, active):
    bench = Bench(valkey_url, streams.names, ServingRules(calendar=SessionCalendar("XNYS")))
    bench.serve(panel, [active])
    deadline = datetime.now(UTC) + timedelta(minutes=10)
    bench.now = deadline + timedelta(hours=6)
    streams.add(REQUEST | {"deadline": deadline.isoformat().replace("+00:00", "Z")})

    bench.run_once()

    assert streams.rejections() == []
    assert len(streams.results()) == 1


def test_group_destroyed_is_made_again_and_nothing_answered_twice(bench, streams):
    streams.add(REQUEST, times=2)
    bench.run_once()
    streams.client.xgroup_destroy(streams.names.requests, GROUP)
    streams.add(REQUEST)

    thread = threading.Thread(target=bench.consumer.run)
    thread.start()
    assert wait_until(lambda: len(streams.results()) == 3 and streams.pending() == 0, PATIENCE)
    bench.shutdown.request()
    thread.join(10)

    assert len({vector.request_id for vector in streams.results()}) == 3
    assert len(streams.results()) == 3


def test_what_was_answered_before_its_group_was_lost_is_not_computed_again(bench, streams):
    streams.add({**REQUEST, "request_id": "r1"})
    streams.add({"strategy": "nobody"})
    streams.add({**REQUEST, "request_id": "r1", "top_n": "1"})
    bench.run_once()
    before = bench.counters.drops.copy()
    streams.client.xgroup_destroy(streams.names.requests, GROUP)
    reached: list[Step] = []
    bench.failpoint = reached.append
    bench.now = datetime.now(UTC) + timedelta(hours=1)

    bench.run_once()

    assert reached == [Step.READ] * 3
    assert bench.counters.drops - before == {"duplicate": 2, "conflict": 1}
    assert (len(streams.results()), len(streams.rejections()), streams.pending()) == (1, 1, 0)


def test_backlog_that_nobody_answered_is_asked_now_and_then_and_answered_whole(bench, streams):
    streams.add({"strategy": "nobody"}, times=40)
    bench.now = datetime.now(UTC) + timedelta(hours=1)
    asked = []
    ask = bench.results.acknowledge_answered
    bench.results.acknowledge_answered = lambda entry, request_id: asked.append(entry) or ask(entry, request_id)

    bench.run_once()

    assert len(asked) == 3
    assert (len(streams.rejections()), streams.pending()) == (40, 0)


def test_script_cache_flushed_under_the_worker_is_loaded_again(bench, streams):
    streams.client.script_flush()
    streams.add(REQUEST)

    bench.run_once()

    assert len(streams.results()) == 1


def test_leaving_worker_nacks_what_it_has_no_time_for(valkey_url, streams, rules, panel, active):
    bench = Bench(valkey_url, streams.names, rules, limits=make_limits(lease_ms=60_000), grace_seconds=1e-9)
    bench.serve(panel, [active])
    bench.stream.ensure_group()
    streams.add(REQUEST, times=3)
    entries = bench.stream.read(10, 10)
    bench.shutdown.request()

    bench.take(entries)

    heir = Bench(valkey_url, streams.names, rules, name="heir", limits=make_limits(lease_ms=60_000))
    claimed = [heir.stream.claim() for _ in range(3)]
    assert [entry.deliveries for entry in claimed if entry] == [1, 1, 1]


def test_unreachable_server_is_reported_as_unavailable(rules, streams, free_port):
    bench = Bench(f"redis://127.0.0.1:{free_port}/0", streams.names, rules)

    with pytest.raises(StreamUnavailable, match="ConnectionError"):
        bench.stream.read(1, 10)


@pytest.fixture
def deaf_after_a_word(valkey_url, streams, rules, panel, active, monkeypatch):
    """A running consumer whose server can go deaf; it waits for a moment where it would wait for five seconds."""
    monkeypatch.setattr(server, "COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.5)
    proxy = Proxy(valkey_url)
    bench = Bench(proxy.url, streams.names, rules)
    bench.serve(panel, [active])
    runner = threading.Thread(target=bench.consumer.run, daemon=True)
    runner.start()
    assert wait_until(lambda: streams.client.exists(streams.names.requests), PATIENCE)
    yield bench, proxy
    proxy.heal()
    bench.shutdown.request()
    runner.join(PATIENCE)
    proxy.close()


def test_reader_notices_a_server_that_went_deaf_and_reads_on(deaf_after_a_word, streams):
    bench, proxy = deaf_after_a_word
    proxy.deaf.set()
    assert wait_until(lambda: bench.outage.lasting, PATIENCE)

    proxy.heal()
    streams.add(REQUEST)

    assert wait_until(lambda: len(streams.results()) == 1 and not bench.outage.lasting, PATIENCE)
    assert bench.outage.reasons == {"TimeoutError": 1}


def test_commit_notices_a_server_that_went_deaf_and_is_repeated(deaf_after_a_word, streams):
    bench, proxy = deaf_after_a_word
    bench.failpoint = lambda step: step is Step.COMPUTED and proxy.deaf.set()
    streams.add(REQUEST)
    assert wait_until(lambda: bench.outage.lasting, PATIENCE)

    bench.failpoint = lambda _step: None
    proxy.heal()

    assert wait_until(lambda: len(streams.results()) == 1 and streams.pending() == 0, PATIENCE)
    assert streams.results()[0].deliveries == 1


def test_results_of_one_worker_come_in_the_order_of_the_requests(bench, streams):
    entries = streams.add(REQUEST, times=40)

    bench.run_once()

    assert [vector.request_id for vector in streams.results()] == entries


def test_queue_time_and_delivery_count_are_in_the_vector(bench, streams):
    streams.client.xadd(streams.names.requests, REQUEST, id=f"{int(NOW.timestamp() * 1000) - 1500}-0")

    bench.run_once()

    (vector,) = streams.results()
    assert vector.queue_ms == pytest.approx(1500, abs=1)
    assert vector.deliveries == 1
