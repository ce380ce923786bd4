"""Requests that this worker cannot answer, or that another living worker answers better."""

import dataclasses
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Heartbeat, RejectionCode, ServedModel, StreamNames, WorkerState
from contracts.codec import encode
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE
from tests.support.market import make_panel
from tests.support.serving import NOW, Bench, make_active, make_limits, put_hash
from worker.embedded.processes import wait_until
from worker.serving.peers import Peer, Peers
from worker.serving.pipeline import ServingRules
from worker.serving.slots import Slots

SYMBOLS = ("AAPL", "IBM", "MSFT")
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM,MSFT", "as_of": "2013-02-01"}


@pytest.fixture(scope="module")
def rules():
    return ServingRules(
        calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)), default_as_of="snapshot"
    )


@pytest.fixture(scope="module")
def panel():
    return make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5))


@pytest.fixture(scope="module")
def active():
    return make_active(SYMBOLS)


class Fleet:
    """Consumers of one group, each of which knows the others by the heartbeats that the test writes."""

    def __init__(self, url, streams, rules):
        self._url, self._streams, self._rules = url, streams, rules
        self.benches = {}

    def add(self, name, panel=None, active=(), *, order="1", **limits):
        bench = Bench(self._url, self._streams.names, self._rules, name=name, limits=make_limits(**limits))
        bench.stream.ensure_group()
        bench.serve(None, active, known=["alpha_baseline"])
        if panel is not None:
            bench.slots.put_panel(panel, order)
        bench.stream.read(1, 10)  # the group knows a consumer once it has read
        self.benches[name] = bench
        return bench

    def beat(self, **states):
        """Write every heartbeat as it is now, and let each worker read the others'."""
        for name, bench in self.benches.items():
            slots = bench.slots
            beat = Heartbeat(
                worker=name,
                state=states.get(name, WorkerState.UNREADY if slots.unable() else WorkerState.SERVING),
                host="h",
                pid=1,
                started_at=NOW,
                beaten_at=NOW,
                code_version="1",
                serving=tuple(
                    ServedModel(strategy=strategy, version=one.bundle.version, activation=one.activation)
                    for strategy, one in slots.active.items()
                ),
                loading=",".join(slots.loading),
                snapshot_order=slots.snapshot_order,
                reason=slots.unable(),
            )
            put_hash(self._streams.client, self._streams.names.worker(name), encode(beat))
        for bench in self.benches.values():
            bench.peers.refresh(self._streams.client)


@pytest.fixture
def fleet(valkey_url, streams, rules):
    return Fleet(valkey_url, streams, rules)


def owners(streams):
    rows = streams.client.xpending_range(streams.names.requests, "workers", min="-", max="+", count=100)
    return [row["consumer"].decode() for row in rows]


def test_what_only_another_worker_can_answer_is_given_to_it_and_costs_no_delivery(fleet, streams, panel, active):
    poor, rich = fleet.add("poor"), fleet.add("rich", panel, [active])
    fleet.beat()
    streams.add(REQUEST, times=5)

    poor.run_once()

    assert owners(streams) == ["rich"] * 5
    assert set(streams.deliveries().values()) == {1}
    for _ in range(5):
        rich.take(rich.intake.read())
    assert [vector.deliveries for vector in streams.results()] == [1] * 5
    assert streams.rejections() == []
    assert (poor.counters.left, rich.counters.deliveries["given"]) == ({"given": 5}, 5)


@pytest.mark.parametrize("as_of", ["2013-02-01", None], ids=["a session that both have", "the latest"])
def test_worker_with_an_older_snapshot_leaves_every_question_to_the_newest(fleet, streams, panel, active, as_of):
    newer = dataclasses.replace(panel, snapshot_id="f" * 64)
    old, new = fleet.add("old", panel, [active], order="1"), fleet.add("new", newer, [active], order="2")
    fleet.beat()
    streams.add({name: value for name, value in (REQUEST | {"as_of": as_of}).items() if value}, times=4)

    for entry in old.intake.read_new(10)[:2]:
        old.take([entry])
    new.take(new.intake.read())
    new.take(new.intake.read())

    assert {vector.snapshot_id for vector in streams.results()} == {"f" * 64}
    assert old.counters.answered == 0


def test_worker_with_an_older_activation_leaves_requests_to_the_later_one(fleet, streams, panel, active):
    old = fleet.add("old", panel, [active])
    fleet.add("new", panel, [dataclasses.replace(active, activation=active.activation + 1)])
    fleet.beat()
    streams.add(REQUEST)

    old.run_once()

    assert owners(streams) == ["new"]


def test_entry_given_to_a_worker_that_dies_is_answered_by_another_after_its_lease(fleet, streams, panel, active):
    poor, third = fleet.add("poor"), fleet.add("third")
    fleet.add("rich", panel, [active])
    fleet.beat()
    streams.add(REQUEST)
    poor.run_once()
    assert owners(streams) == ["rich"]
    third.slots.put_panel(panel)
    third.slots.put(active)
    streams.client.delete(streams.names.worker("rich"))
    third.peers.refresh(streams.client)

    assert wait_until(lambda: third.run_once() or len(streams.results()) == 1, PATIENCE)


def test_worker_that_was_given_an_entry_and_lost_its_model_gives_it_on(fleet, streams, panel, active):
    poor, rich, other = fleet.add("poor"), fleet.add("rich", panel, [active]), fleet.add("other")
    fleet.beat()
    streams.add(REQUEST)
    poor.run_once()
    rich.slots.remove("alpha_baseline")
    other.slots.put_panel(panel)
    other.slots.put(active)
    fleet.beat()

    rich.take(rich.intake.read())

    assert owners(streams) == ["other"]


def test_request_that_nobody_can_answer_is_rejected_after_the_grace_with_all_reasons(fleet, streams, panel, active):
    one = fleet.add("one", panel, [active], grace_ms=700, lease_ms=2000)
    fleet.add("two")
    fleet.beat()
    one.slots.set_registered(frozenset({"alpha_baseline", "dormant"}))
    streams.add(REQUEST | {"strategy": "dormant"})
    started = one.results.server_time()

    one.run_once()
    assert streams.rejections() == []
    assert list(streams.deliveries().values()) == [0]
    assert wait_until(lambda: one.run_once() or streams.rejections(), PATIENCE)

    (rejection,) = streams.rejections()
    assert one.results.server_time() - started >= timedelta(milliseconds=700)
    assert rejection.code is RejectionCode.NO_ACTIVE_MODEL
    assert "nor can another worker: two: no model is active here" in rejection.reason
    assert rejection.deliveries == 1
    # Looked at when it came, and when its time was over: no hot loop.
    assert one.counters.left["waiting"] <= 2
    assert streams.pending() == 0


def test_waiting_entry_is_answered_as_soon_as_one_can(fleet, streams, panel, active):
    late = fleet.add("late", grace_ms=60_000)
    streams.add(REQUEST)
    late.run_once()
    assert streams.pending() == 1

    late.slots.put_panel(panel)
    late.slots.put(active)

    assert wait_until(lambda: late.run_once() or streams.results(), PATIENCE)


@pytest.mark.parametrize("how", ["paused", "loading there", "loading here"])
def test_request_waits_longer_where_a_worker_will_answer_it_by_itself(fleet, streams, panel, active, how):
    poor, rich = fleet.add("poor", grace_ms=0), fleet.add("rich", panel, [active] if how == "paused" else [])
    if how != "paused":
        (rich if how == "loading there" else poor).slots.set_loading(frozenset({"alpha_baseline"}))
    fleet.beat(rich=WorkerState.PAUSED if how == "paused" else WorkerState.SERVING)
    streams.add(REQUEST)

    poor.run_once()

    assert streams.rejections() == []
    assert streams.pending() == 1


def test_redriven_request_waits_for_its_whole_grace_again(fleet, streams):
    poor = fleet.add("poor", grace_ms=0)
    (entry,) = streams.add(REQUEST)
    poor.run_once()
    assert len(streams.rejections()) == 1

    assert not streams.client.hexists(streams.names.request(entry), "left_at_ms")


def test_deadline_is_kept_while_an_entry_waits(fleet, streams):
    poor = fleet.add("poor", grace_ms=60_000)
    poor.now = NOW + timedelta(days=10_000)  # this machine's clock asks the server's, which decides
    streams.add(REQUEST | {"deadline": "2013-03-02T11:59:59Z"})

    poor.run_once()

    assert [rejection.code for rejection in streams.rejections()] == [RejectionCode.DEADLINE_EXCEEDED]


def test_own_and_unreadable_heartbeats_are_nobody(fleet, streams, panel, active):
    one = fleet.add("one", panel, [active])
    odd = fleet.add("odd")
    fleet.beat()
    put_hash(streams.client, streams.names.worker("odd"), {"state": "serving", "serving": "no JSON"})
    one.peers.refresh(streams.client)

    assert one.peers.better("alpha_baseline") == ""
    assert odd.peers.better("alpha_baseline") == "one"


def test_peers_of_a_stream_that_is_not_there_are_none(streams):
    peers = Peers(StreamNames("nothing-here"), "w", Slots())

    peers.refresh(streams.client)

    assert peers.reasons("alpha_baseline") == ""


ranks = st.none() | st.tuples(st.sampled_from(["1", "2"]), st.integers(1, 2))


@settings(max_examples=50)
@given(st.lists(ranks, min_size=2, max_size=5))
def test_entry_is_given_on_at_most_once(found):
    """Whatever each worker has, one that was chosen as better finds none that is better still."""

    def peers_of(own):
        slots = Slots()
        slots.rank = lambda _: found[own]
        made = Peers(StreamNames(), str(own), slots)
        made._all = tuple(
            Peer(
                worker=str(place),
                state="serving",
                serving={} if rank is None else {"s": rank[1]},
                loading=(),
                snapshot_order="" if rank is None else rank[0],
                reason="",
            )
            for place, rank in enumerate(found)
            if place != own
        )
        return made

    for own in range(len(found)):
        heir = peers_of(own).better("s")
        assert not heir or peers_of(int(heir)).better("s") == ""
