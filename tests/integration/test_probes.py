"""A probe's vector is looked at and never traded."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from contracts import Purpose, ServedAs, SignalVector, UniverseKind, universe_digest
from contracts.codec import decode, encode
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_panel
from tests.support.published import command_line
from tests.support.serving import Bench, make_active
from tests.support.wire import make_vector
from tests.support.world import STRATEGY, build_world, register
from worker.cli._common import ExitCode
from worker.client import Disposition, Gateway, GatewayOptions, SignalClient
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.archive import Archive
from worker.operations.comparison.published import PairQuery, PublishedPairs, vector_sources
from worker.registry.registry import Registry
from worker.serving.pipeline import ServingRules
from worker.transport.client import pairs_of

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL,IBM,MSFT", "as_of": "2013-02-01"}
PROBE = REQUEST | {"purpose": "probe"}
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def active():
    return make_active(SYMBOLS)


@pytest.fixture(scope="module")
def rules():
    return ServingRules(calendar=SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1)))


@pytest.fixture
def bench(valkey_url, streams, rules, active):
    made = Bench(valkey_url, streams.names, rules)
    made.serve(make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), [active])
    return made


@pytest.fixture
def gateway_of(valkey_url, namespace):
    """Makes gateways that note the targets of what they are asked to apply."""
    made, books = [], []
    client = SignalClient(valkey_url, namespace=namespace)

    def make(**options):
        def apply(application):
            books.append(dict(application.targets))

        made.append(Gateway(client, f"desk-{len(made)}", apply, options=GatewayOptions(block_ms=20, **options)))
        made[-1].books = books
        return made[-1]

    yield make
    for one in made:
        one.close()
    client.close()


def probes(streams):
    rows = streams.client.execute_command("XRANGE", streams.names.probes, "-", "+")
    return [decode(SignalVector, pairs_of(flat)) for _, flat in rows]


def publish(streams, stream, **changes):
    return streams.client.xadd(stream, encode(make_vector(valid_until=TOMORROW, **changes))).decode()


def test_probe_is_answered_on_its_own_stream_and_marked(bench, streams):
    streams.add(PROBE | {"request_id": "curious", "producer": "ada"})
    streams.add(REQUEST | {"request_id": "order"})

    bench.run_once()

    (probe,), (order,) = probes(streams), streams.results()
    assert (probe.request_id, probe.purpose, probe.producer) == ("curious", Purpose.PROBE, "ada")
    assert (order.request_id, order.purpose, order.producer) == ("order", Purpose.TRADE, None)
    assert probe.weights_sha256 == order.weights_sha256
    lineage = ("model_sha256", "bundle_sha256", "feature_set_sha256", "snapshot_id", "as_of", "activation")
    assert [getattr(probe, name) for name in lineage] == [getattr(order, name) for name in lineage]
    assert streams.pending() == 0


def test_probe_moves_no_book_and_keeps_none_from_moving(bench, streams, gateway_of, redis_client):
    """What was seen: a question about two symbols replaced a desk's book, and the full vector after it was too late."""
    streams.add(PROBE | {"symbols": "AAPL,MSFT"})
    bench.run_once()
    assert streams.client.exists(streams.names.results) == 0
    publish(streams, streams.names.results, request_id="full", as_of="2013-02-01")
    gateway = gateway_of()

    assert gateway.run_once() == [Disposition.APPLIED]

    assert gateway.books == [{"AAPL": 1.0, "BRK.B": -1.0}]
    redis_client.delete(gateway._inbox.book("alpha_baseline"))


def test_probe_among_the_results_is_an_alarm_and_never_applied(streams, gateway_of):
    publish(streams, streams.names.results, purpose="probe")
    gateway = gateway_of()

    assert gateway.run_once() == [Disposition.PROBE]

    assert gateway.books == []
    assert streams.client.xpending(streams.names.results, "desk-0")["pending"] == 0


def test_request_without_a_purpose_is_one_to_trade(bench, streams):
    streams.add(REQUEST | {"request_id": "r", "purpose": "trade"})
    streams.add(REQUEST | {"request_id": "r"})

    bench.run_once()

    assert [vector.purpose for vector in streams.results()] == [Purpose.TRADE]
    assert bench.counters.drops == {"duplicate": 1}


@pytest.mark.parametrize(("first", "second"), [(PROBE, REQUEST), (REQUEST, PROBE)])
def test_id_keeps_the_purpose_that_it_was_asked_with(bench, streams, first, second):
    streams.add(first | {"request_id": "r"})
    streams.add(second | {"request_id": "r"})

    bench.run_once()

    assert len(probes(streams)) + len(streams.results()) == 1
    assert bench.counters.drops == {"conflict": 1}
    remembered = streams.client.execute_command("HGET", streams.names.request("r"), "purpose").decode()
    assert remembered == first.get("purpose", "trade")


def test_purpose_that_nobody_knows_is_rejected(bench, streams):
    streams.add(REQUEST | {"purpose": "gamble"})

    bench.run_once()

    (rejection,) = streams.rejections()
    assert rejection.code == "malformed_request"
    assert "gamble" in rejection.reason
    assert (probes(streams), streams.results()) == ([], [])


def test_probes_are_cut_to_a_bound_when_one_is_added(bench, streams, monkeypatch):
    monkeypatch.setattr("worker.serving.committer.PROBES_KEPT", 100)
    for _ in range(400):
        streams.client.xadd(streams.names.probes, {"filler": "x"})
    streams.add(PROBE)

    bench.run_once()

    assert streams.client.xlen(streams.names.probes) < 300
    assert streams.client.exists(streams.names.results) == 0


def test_shadow_of_a_probe_is_marked_and_is_no_evidence(streams, tmp_path):
    for stream, part, purpose in [
        (streams.names.results, ServedAs.ACTIVE, "trade"),
        (streams.names.shadow, ServedAs.SHADOW, "trade"),
        (streams.names.probes, ServedAs.ACTIVE, "probe"),
        (streams.names.shadow, ServedAs.SHADOW, "probe"),
    ]:
        version = "v1" if part is ServedAs.ACTIVE else "v2"
        publish(streams, stream, request_id=purpose, served_as=part, purpose=purpose, model_version=version)
    archives = {name: Archive(tmp_path, name, SignalVector) for name in (streams.names.results, streams.names.shadow)}
    wanted = PairQuery(strategy="alpha_baseline", versions=("v1", "v2"))
    published = PublishedPairs(vector_sources(streams.client, streams.names, archives), wanted)

    assert len(list(published.pairs())) == 1

    assert published.counts.probes == 1
    assert (published.counts.left_alone, published.counts.right_alone) == (0, 0)


def test_gateway_follows_the_producers_that_it_names(streams, gateway_of):
    publish(streams, streams.names.results, request_id="a", producer="rebalance")
    publish(streams, streams.names.results, request_id="b", producer="intern", as_of="2013-02-04")
    publish(streams, streams.names.results, request_id="c", as_of="2013-02-05")
    gateway = gateway_of(producers=frozenset({"rebalance"}))

    assert gateway.run_once() == [Disposition.APPLIED, Disposition.IGNORED, Disposition.IGNORED]


def test_vector_over_another_universe_cannot_replace_a_book_that_names_its_own(bench, streams, gateway_of):
    streams.add({"strategy": "alpha_baseline", "as_of": "2013-02-01"})
    streams.add(REQUEST | {"symbols": "MSFT,AAPL", "as_of": "2013-02-04"})
    bench.run_once()
    whole, pair = (vector.model_copy(update={"valid_until": TOMORROW}) for vector in streams.results())
    streams.client.delete(streams.names.results)
    for vector in (whole, pair):
        streams.client.xadd(streams.names.results, encode(vector))

    assert (whole.universe, pair.universe) == (UniverseKind.MODEL, UniverseKind.NAMED)
    assert pair.universe_sha256 == universe_digest(["AAPL", "MSFT"])
    follow_model, follow_pair = (
        gateway_of(universes=frozenset({"model"})),
        gateway_of(universes=frozenset({universe_digest(["AAPL", "MSFT"])})),
    )
    assert follow_model.run_once() == [Disposition.APPLIED, Disposition.IGNORED]
    assert follow_pair.run_once() == [Disposition.IGNORED, Disposition.APPLIED]
    assert gateway_of().run_once() == [Disposition.APPLIED, Disposition.APPLIED]


def test_left_out_symbols_belong_to_the_universe_that_was_asked(bench, streams):
    panel = make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5), starts={"GOOG": 110})
    bench.serve(panel, [])
    streams.add(REQUEST | {"symbols": "GOOG,AAPL,IBM", "on_ineligible": "exclude"})

    bench.run_once()

    (vector,) = streams.results()
    assert [one.symbol for one in vector.excluded] == ["GOOG"]
    assert vector.universe_sha256 == universe_digest(["AAPL", "GOOG", "IBM"])


def test_text_where_names_are_wanted_is_refused():
    with pytest.raises(ValueError, match="producers was the text"):
        GatewayOptions(producers="rebalance")


@pytest.fixture
def world(tmp_path):
    return build_world(tmp_path)


@pytest.fixture
def fleet(valkey_url, database_url, world, streams):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, world, namespace=streams.names.namespace)
    made.worker()
    yield made
    made.end()


@pytest.mark.usefixtures("fleet")
def test_request_command_probes_unless_it_is_to_trade(streams, world, valkey_url):
    call = command_line(world, streams, valkey_url)

    looked = call("request", "AAPL", "MSFT", "--as-of", "2013-12-24", "--wait", "--request-id", "look")
    traded = call("request", "AAPL", "MSFT", "--as-of", "2013-12-24", "--wait", "--request-id", "buy", "--trade")
    again = call("request", "AAPL", "MSFT", "--as-of", "2013-12-24", "--wait", "--request-id", "look", "--trade")

    assert (looked.exit_code, traded.exit_code, again.exit_code) == (0, 0, ExitCode.CONFLICT)
    assert "(probe)" in looked.stdout
    assert "(probe)" not in traded.stdout
    assert "request look was asked before, to probe" in again.stderr
    assert [vector.request_id for vector in probes(streams)] == ["look"]
    assert [vector.request_id for vector in streams.results()] == ["buy"]
    assert wait_until(lambda: streams.pending() == 0, PATIENCE)

    shown = json.loads(call("requests", "show", "look", "--json").stdout)
    assert (shown["remembered"]["purpose"], shown["outcome"]["purpose"]) == ("probe", "probe")
    replayed = json.loads(call("replay", "look", "--json").stdout)
    assert (replayed["outcome"], replayed["purpose"]) == ("identical", "probe")
    assert json.loads(call("replay", "buy", "--json").stdout)["purpose"] == "trade"
    assert call("replay", "buy", "--probes").exit_code == ExitCode.NOT_FOUND
