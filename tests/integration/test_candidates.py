"""Candidates of one consumer on a real server: what they answer, what they compute in the shadow."""

import dataclasses
import threading
from datetime import date

import pytest

from contracts import ServedAs, SignalVector, StreamNames
from contracts.codec import decode
from strategies.errors import InfeasibleConstruction
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE
from tests.support.market import make_panel
from tests.support.serving import NOW, Bench, Streams, make_active, open_client
from worker.embedded.processes import wait_until
from worker.retry import Outage
from worker.serving import shadow as module
from worker.serving.pipeline import ServingRules
from worker.serving.shadow import Shadower, ShadowThread
from worker.serving.slots import Candidate
from worker.serving.traffic_split import in_share
from worker.shutdown import Shutdown
from worker.transport.client import pairs_of

STRATEGY = "alpha_baseline"
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS), "as_of": "2013-02-01"}
SHARE = 0.3


@pytest.fixture(scope="module")
def rules():
    return ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))


@pytest.fixture(scope="module")
def panel():
    return make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5))


@pytest.fixture(scope="module")
def bundles():
    """Bundles of v1, v2 and v3, which differ in every prediction."""
    return [make_active(SYMBOLS, seed=seed).bundle for seed in range(3)]


@pytest.fixture
def bench(valkey_url, streams, rules, panel):
    made = Bench(valkey_url, streams.names, rules)
    made.serve(panel, [make_active(SYMBOLS, activation=7)])
    return made


def stand(bench, *candidates):
    """Let these bundles be candidates, each with its share as a canary."""
    made = tuple(Candidate(bundle=bundle, since=NOW, canary_share=share) for bundle, share in candidates)
    assert bench.slots.change_candidates(STRATEGY, lambda _: made)


def ask(streams, count, start=0):
    ids = [f"r-{number}" for number in range(start, start + count)]
    for request_id in ids:
        streams.add(REQUEST | {"request_id": request_id})
    return ids


def broken(bundle, error):
    """Return a bundle that raises on every prediction."""

    class Broken(type(bundle)):
        def predict(self, _features):
            raise error

    return Broken(**{field.name: getattr(bundle, field.name) for field in dataclasses.fields(bundle) if field.init})


@pytest.fixture
def shadowing(bench, streams, valkey_url):
    """Start a shadow thread on what the bench offers; it is stopped in the end."""
    shutdown, started = Shutdown(0), []

    def start(url=valkey_url, *, busy=lambda: False, shadows=None):
        shadower = Shadower(
            shadows or bench.shadows,
            bench.slots,
            bench.rules,
            commands=open_client(url, "shadow"),
            names=streams.names,
            outage=Outage("shadow"),
        )
        thread = ShadowThread(
            shadows or bench.shadows, shadower, verify_next=lambda: False, busy=busy, shutdown=shutdown
        )
        thread.start()
        started.append(thread)
        return thread

    yield start
    shutdown.request()
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def shadows_of(streams):
    rows = streams.client.execute_command("XRANGE", streams.names.shadow, "-", "+")
    return [decode(SignalVector, pairs_of(flat)) for _, flat in rows]


def count_of(bench, result):
    return bench.shadows.counts[result]


def test_canary_answers_its_share_by_request_id_and_is_marked(bench, streams, bundles):
    stand(bench, (bundles[1], SHARE))
    ids = ask(streams, 40)

    bench.run_once()

    by_part = {vector.request_id: vector for vector in streams.results()}
    expected = {request_id for request_id in ids if in_share(request_id, ServedAs.CANARY, SHARE)}
    canary_for = {vector.request_id for vector in by_part.values() if vector.served_as is ServedAs.CANARY}
    assert 0 < len(canary_for) < len(ids)
    assert canary_for == expected
    for request_id, vector in by_part.items():
        bundle = bundles[1] if request_id in canary_for else bundles[0]
        assert (vector.model_version, vector.model_sha256) == (bundle.version, bundle.model_sha256)
        assert vector.activation == 7
    assert bench.counters.parts == {"canary": len(canary_for), "active": len(ids) - len(canary_for)}


def test_worker_without_the_candidate_answers_by_the_active_version(bench, streams):
    ids = ask(streams, 40)

    bench.run_once()

    assert any(in_share(request_id, ServedAs.CANARY, SHARE) for request_id in ids)
    assert {(vector.model_version, vector.served_as) for vector in streams.results()} == {("v1", ServedAs.ACTIVE)}


def test_canary_that_raises_is_dropped_and_costs_nobody_an_answer(bench, streams, bundles):
    stand(bench, (broken(bundles[1], RuntimeError("kaboom")), SHARE), (bundles[2], 0.0))
    ids = ask(streams, 40)

    bench.run_once()

    assert sorted(vector.request_id for vector in streams.results()) == sorted(ids)
    assert {(vector.model_version, vector.served_as) for vector in streams.results()} == {("v1", ServedAs.ACTIVE)}
    assert streams.rejections() == []
    assert [one.bundle.version for one in bench.slots.candidates[STRATEGY]] == ["v3"]
    assert list(bench.shadows.dropped_canaries) == [(STRATEGY, "v2", "RuntimeError: kaboom")]
    assert bench.counters.canary_fallbacks == 1
    assert bench.counters.failed == 0


def test_what_a_canary_cannot_honestly_answer_the_active_version_answers(bench, streams, bundles):
    stand(bench, (broken(bundles[1], InfeasibleConstruction("no")), SHARE))
    ids = ask(streams, 40)

    bench.run_once()

    share = sum(in_share(request_id, ServedAs.CANARY, SHARE) for request_id in ids)
    assert {vector.model_version for vector in streams.results()} == {"v1"}
    assert len(streams.results()) == len(ids)
    assert bench.counters.canary_fallbacks == share
    assert [one.bundle.version for one in bench.slots.candidates[STRATEGY]] == ["v2"]


def test_request_that_nobody_can_answer_is_rejected_once(bench, streams, bundles):
    stand(bench, (bundles[1], SHARE))
    for number in range(40):
        streams.add(REQUEST | {"request_id": f"r-{number}", "symbols": "ZZZZ"})

    bench.run_once()

    assert len({rejection.request_id for rejection in streams.rejections()}) == len(streams.rejections()) == 40
    assert streams.results() == []
    assert bench.shadows.waiting() == 0


def test_shadow_vectors_are_those_that_the_candidate_would_have_answered(
    bench, streams, bundles, shadowing, valkey_url
):
    stand(bench, (bundles[1], 0.0), (bundles[2], 0.0))
    shadowing()
    ids = ask(streams, 3)

    bench.run_once()

    assert wait_until(lambda: len(shadows_of(streams)) == 6, PATIENCE)
    assert {vector.served_as for vector in streams.results()} == {ServedAs.ACTIVE}
    assert len(streams.results()) == len(ids)
    for bundle in bundles[1:]:
        own = StreamNames(f"{streams.names.namespace}-{bundle.version}")
        direct = Bench(valkey_url, own, bench.rules)
        direct.serve(bench.slots.panel, [dataclasses.replace(make_active(SYMBOLS, activation=7), bundle=bundle)])
        alone = Streams(valkey_url, own.namespace)
        ask(alone, 3)
        direct.run_once()
        wanted = {vector.request_id: vector for vector in alone.results()}
        found = {one.request_id: one for one in shadows_of(streams) if one.model_version == bundle.version}
        assert found.keys() == wanted.keys()
        for request_id, vector in found.items():
            same = {"worker", "queue_ms", "compute_ms", "served_as"}
            assert vector.model_dump(exclude=same) == wanted[request_id].model_dump(exclude=same)
            assert vector.served_as is ServedAs.SHADOW


def test_share_of_the_requests_is_shadowed_for_all_candidates_alike(bench, streams, bundles, shadowing):
    shadows = bench.shadows
    shadows.share = 0.5
    stand(bench, (bundles[1], 0.0), (bundles[2], 0.0))
    shadowing(shadows=shadows)
    ids = ask(streams, 20)
    expected = {request_id for request_id in ids if in_share(request_id, ServedAs.SHADOW, 0.5)}

    bench.run_once()

    assert 0 < len(expected) < len(ids)
    assert wait_until(lambda: shadows.counts["published"] == 2 * len(expected), PATIENCE)
    for version in ("v2", "v3"):
        assert {one.request_id for one in shadows_of(streams) if one.model_version == version} == expected


def test_canary_does_not_shadow_what_it_answered(bench, streams, bundles, shadowing):
    shadows = bench.shadows
    stand(bench, (bundles[1], SHARE), (bundles[2], 0.0))
    shadowing(shadows=shadows)
    ids = ask(streams, 20)
    answered = {request_id for request_id in ids if in_share(request_id, ServedAs.CANARY, SHARE)}

    bench.run_once()

    assert answered
    assert wait_until(lambda: shadows.counts["published"] == 2 * len(ids) - len(answered), PATIENCE)
    assert {one.request_id for one in shadows_of(streams) if one.model_version == "v2"} == set(ids) - answered
    assert {one.request_id for one in shadows_of(streams) if one.model_version == "v3"} == set(ids)


def test_rejected_and_redelivered_requests_are_not_shadowed(bench, streams, bundles):
    stand(bench, (bundles[1], 0.0))
    streams.add(REQUEST | {"request_id": "r-1"}, times=2)
    streams.add(REQUEST | {"request_id": "r-2", "symbols": "ZZZZ"})

    bench.run_once()

    assert bench.counters.drops == {"duplicate": 1}
    assert bench.shadows.waiting() == 1


def test_full_queue_drops_and_counts_and_delays_nothing(bench, streams, bundles):
    stand(bench, (bundles[1], 0.0))
    ask(streams, 20)

    bench.run_once()

    assert len(streams.results()) == 20
    assert bench.shadows.waiting() == 8
    assert count_of(bench, "dropped") == 12


def test_shadow_server_that_is_unavailable_stops_no_commit(bench, streams, bundles, shadowing, free_port):
    stand(bench, (bundles[1], 0.0))
    shadowing(f"redis://127.0.0.1:{free_port}/0")
    ask(streams, 5)

    bench.run_once()

    assert len(streams.results()) == 5
    assert wait_until(lambda: count_of(bench, "unpublished") == 5, PATIENCE)
    assert shadows_of(streams) == []


def test_candidate_that_raises_in_the_shadow_is_counted_and_logged_once(
    bench, streams, bundles, shadowing, monkeypatch
):
    told = []
    monkeypatch.setattr(module._log, "exception", lambda event, **facts: told.append((event, facts["version"])))
    stand(bench, (broken(bundles[1], RuntimeError("kaboom")), 0.0), (bundles[2], 0.0))
    thread = shadowing()
    ask(streams, 5)

    bench.run_once()

    assert wait_until(lambda: count_of(bench, "failed") == 5 and count_of(bench, "published") == 5, PATIENCE)
    assert told == [("shadow_failed", "v2")]
    assert thread.is_alive()
    assert {one.model_version for one in shadows_of(streams)} == {"v3"}


def test_nothing_is_shadowed_while_a_request_is_in_flight(bench, streams, bundles, shadowing):
    in_flight = threading.Event()
    in_flight.set()
    stand(bench, (bundles[1], 0.0))
    shadowing(busy=in_flight.is_set)
    ask(streams, 3)
    bench.run_once()
    assert wait_until(lambda: bench.shadows.waiting() == 2, PATIENCE)
    assert not wait_until(lambda: shadows_of(streams) != [], 0.3)

    in_flight.clear()

    assert wait_until(lambda: len(shadows_of(streams)) == 3, PATIENCE)


def test_shadow_vector_is_never_committed_as_a_result(bench, streams):
    bench.stream.ensure_group()
    ask(streams, 1)
    (entry,) = bench.stream.read(1, 10)
    answered = bench.processor.process(entry)

    with pytest.raises(ValueError, match="is a shadow vector"):
        bench.results.publish(entry, answered.vector.model_copy(update={"served_as": ServedAs.SHADOW}))

    assert streams.results() == []
