import asyncio
import json
import math
import shutil
from datetime import date
from urllib.request import urlopen

import pytest

from contracts import SignalVector
from strategies.market.calendar import SessionCalendar
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_bars, make_panel, write_snapshot
from tests.support.published import command_line
from tests.support.serving import Bench, make_active
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.client import AsyncSignalClient, SignalClient
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.archive import Archive, archive_stream
from worker.registry.registry import Registry
from worker.serving.pipeline import ServingRules

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def fleet(valkey_url, database_url, folder, namespace):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    made = Fleet(endpoints, folder, namespace=namespace, explain_symbols=3, explain_features=4)
    yield made
    made.end()


@pytest.fixture
def call(folder, streams, valkey_url, database_url):
    return command_line(folder, streams, valkey_url, DATABASE_URL=database_url)


def vector_of(client, **request):
    vector = client.result(client.submit(STRATEGY, **request), timeout=PATIENCE)
    assert isinstance(vector, SignalVector), vector
    return vector


def sums(vector):
    return [
        math.fsum((one.base, *(named.contribution for named in one.contributions), one.others))
        for one in vector.explanations
    ]


def doubled(seed):
    """Return the world's bars with twice the logarithm of every return, and a thousand times the volume."""
    bars = make_bars(sessions=300, seed=seed)
    start = bars["close"].iloc[0]
    for name in ("open", "high", "low", "close"):
        bars[name] = start * (bars[name] / start) ** 2
    return bars.assign(volume=bars["volume"] * 1000)


def test_explained_vector_sums_replays_and_outlives_its_stream(fleet, streams, call, folder, valkey_url, namespace):
    fleet.worker(drift_sessions=0)
    with SignalClient(valkey_url, namespace=namespace) as client:
        plain = vector_of(client, symbols=SYMBOLS[:3])
        explained = vector_of(client, symbols=SYMBOLS[:3], request_id="mine", explain=True)
    shown = call("request", *SYMBOLS[:3], "--explain", "--wait")
    archive = Archive(folder / "data", streams.names.results, SignalVector)
    archive_stream(streams.client, archive)
    streams.client.xtrim(streams.names.results, maxlen=0)
    replayed = json.loads(call("replay", "mine", "--json").stdout)

    predicted = [signal.predicted_return for signal in explained.weights]
    assert sums(explained) == pytest.approx(predicted, rel=1e-14)
    assert {len(one.contributions) for one in explained.explanations} <= {1, 2, 3, 4}
    assert (plain.explanations, plain.weights_sha256) == ((), explained.weights_sha256)
    first = explained.explanations[0]
    assert shown.exit_code == 0, shown.stderr
    assert all(text in shown.stdout for text in (first.contributions[0].feature, f"{first.others:+.6f}"))
    kept = archive.answer_to("mine").fields
    assert (kept["served_as"], len(json.loads(kept["explanations"]))) == ("active", 3)
    assert (replayed["outcome"], replayed["found_in"]) == ("identical", "archive")


@pytest.fixture
def bench(valkey_url, streams):
    """A consumer in this process, which may explain three symbols."""
    calendar = SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))
    made = Bench(valkey_url, streams.names, ServingRules(calendar=calendar, explain_symbols=3))
    made.serve(make_panel(SYMBOLS, sessions=120, first=date(2012, 9, 5)), [make_active(SYMBOLS)])
    return made


def test_explanations_are_asked_for_by_hand_and_by_an_event_loop(bench, streams, valkey_url, namespace):
    streams.add({"strategy": STRATEGY, "symbols": "AAPL,IBM", "as_of": "2013-02-01", "explain": "true"})

    async def ask():
        async with AsyncSignalClient(valkey_url, namespace=namespace) as client:
            return await client.submit(STRATEGY, ["AAPL", "IBM"], as_of="2013-02-01", explain=True)

    asked = asyncio.run(ask())
    bench.run_once()

    by_hand, by_loop = streams.results()
    assert by_loop.request_id == asked
    assert by_hand.explanations == by_loop.explanations
    assert len(by_hand.explanations) == 2


def test_more_symbols_than_may_be_explained_are_rejected_by_their_code(bench, streams):
    streams.add({"strategy": STRATEGY, "as_of": "2013-02-01", "explain": "true"})
    streams.add({"strategy": STRATEGY, "as_of": "2013-02-01", "explain": "perhaps"})

    bench.run_once()

    assert [one.code.value for one in streams.rejections()] == ["too_many_to_explain", "malformed_request"]
    assert "4 symbols are to be explained, at most 3" in streams.rejections()[0].reason


def test_drift_of_new_bars_is_on_the_metrics_page_in_the_log_and_in_the_heartbeat(
    fleet, folder, streams, free_port, valkey_url, namespace
):
    worker = fleet.worker(health_port=free_port, drift_sessions=250, drift_alarm_psi=0.1)
    quiet = worker.await_event("drift_measured", strategy=STRATEGY)

    write_snapshot(
        folder / "data", {symbol: doubled(row) for row, symbol in enumerate(SYMBOLS)}, run_date=date(2031, 1, 2)
    )
    streams.client.xadd(streams.names.control, {"type": "data.refreshed"})
    alarm = worker.await_event("drift_alarm", strategy=STRATEGY)

    assert quiet["psi"] < 0.1 <= alarm["psi"]
    with urlopen(f"http://127.0.0.1:{free_port}/metrics") as page:
        text = page.read().decode()
    assert f'signal_worker_drift_features{{level="major",strategy="{STRATEGY}"}} {alarm["major_features"]}.0' in text
    assert alarm["major_features"] > quiet["major_features"]
    with SignalClient(valkey_url, namespace=namespace) as client:
        assert wait_until(lambda: f"{STRATEGY}={alarm['psi']:.4f}" in client.workers()[0].drift, PATIENCE)
