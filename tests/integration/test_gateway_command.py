"""`signal-worker gateway --paper`: the shipped gateway as a process, on the bars of a snapshot."""

import json
import signal
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from tests.support.fleet import PATIENCE, Fleet
from tests.support.published import Press, command_line
from tests.support.world import STRATEGY, build_world
from worker.cli._common import ExitCode
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.paper_trading import Fills

NOW = datetime.now(UTC)


@pytest.fixture
def world(tmp_path):
    return build_world(tmp_path)


@pytest.fixture
def panel(world):
    snapshot = latest_snapshot(world / "data")
    return load_panel(snapshot, SessionCalendar(snapshot.calendar))


@pytest.fixture
def press(world, streams):
    return Press(world, streams)


@pytest.fixture
def call(world, streams, valkey_url, redis_client):
    run = command_line(world, streams, valkey_url)

    def gateway(*words, code=0):
        done = run("gateway", *words)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words and not code else done.output

    yield gateway
    for key in redis_client.scan_iter(match=f"{streams.names.namespace}:gateway:*:book:*"):
        redis_client.delete(key)


def test_historical_vectors_become_orders_and_not_expired(call, press, panel):
    for session in (-4, -3):
        press.publish(press.vector(f"r{session}", session=session), NOW)

    shown = call("--paper", "--once", "--equity", "10000", "--json")

    assert shown["taken"] == {"applied": 2}
    first = shown["fills"][0]
    session = panel.sessions[-3].astype(object)
    assert (first["request_id"], first["as_of"], first["session"]) == (
        "r-4",
        str(panel.sessions[-4].astype(object)),
        str(session),
    )
    assert first["price"] == panel.fields["close"][panel.index[first["symbol"]], -3]
    weights = {signal.symbol: signal.target_weight for signal in press.vector("r", session=-3).weights}
    held = {symbol: Decimal(shares) for symbol, shares in shown["positions"][STRATEGY].items()}
    assert set(held) == {symbol for symbol, weight in weights.items() if weight}
    assert all(held[symbol] * Decimal(str(weights[symbol])) > 0 for symbol in held)


def test_last_session_is_filled_at_its_own_close_where_no_later_one_is_known(call, press, panel):
    press.publish(press.vector("last"), NOW)

    (*_, fill) = call("--paper", "--once", "--json")["fills"]

    assert fill["session"] == str(panel.sessions[-1].astype(object))


def test_by_the_servers_clock_historical_vectors_are_expired(call, press):
    press.publish(press.vector("old"), NOW)

    shown = call("--paper", "--once", "--server-clock", "--json")

    assert (shown["taken"], shown["fills"]) == ({"expired": 1}, [])


def test_older_vector_behind_a_newer_one_is_not_traded(call, press):
    press.publish(press.vector("new", session=-2), NOW)
    press.publish(press.vector("late", session=-5), NOW)

    assert call("--paper", "--once", "--json")["taken"] == {"applied": 1, "not_newer": 1}


def test_fills_are_parquet_and_a_restart_continues_from_them(call, press, world, streams, redis_client):
    press.publish(press.vector("one", session=-4), NOW)
    first = call("--paper", "--once", "--json")
    folder = world / "data" / "paper" / streams.names.namespace / "paper"
    assert [path.name for path in sorted(folder.glob("*.parquet"))] == ["000001.parquet"]
    # The server forgets all of it: order keys and positions are in the files.
    redis_client.delete(*redis_client.scan_iter(match=f"{streams.names.namespace}:gateway:*"))
    redis_client.xgroup_destroy(streams.names.results, "paper")

    again = call("--paper", "--once", "--json")

    assert (again["taken"], again["fills"]) == ({"applied": 1}, [])
    assert again["positions"] == first["positions"]
    ledger = Fills(folder)
    assert [fill.key for fill in ledger.read()] == [fill["key"] for fill in first["fills"]]
    ledger.close()


def test_second_process_with_the_same_fills_is_refused(call, world, streams):
    ledger = Fills(world / "data" / "paper" / streams.names.namespace / "paper")

    assert "another process trades" in call("--paper", "--once", code=ExitCode.FAILED)

    ledger.close()


def test_damaged_fills_are_named(call, world, streams):
    folder = world / "data" / "paper" / streams.names.namespace / "paper"
    folder.mkdir(parents=True)
    (folder / "000001.parquet").write_bytes(b"PAR1 no")

    assert "000001.parquet holds no fills" in call("--paper", "--once", code=ExitCode.FAILED)


def test_what_is_not_followed_is_not_traded(call, press):
    press.publish(press.vector("named"), NOW)

    shown = call("--paper", "--once", "--universe", "model", "--json")

    assert (shown["taken"], shown["fills"]) == ({"ignored": 1}, [])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "gateway takes --paper"),
        (("--paper", "--json"), "--json goes with --once"),
        (("--paper", "--once", "--name", "my desk"), "1 to 64 letters"),
    ],
)
def test_impossible_call_is_one_sentence(call, words, sentence):
    assert sentence in call(*words, code=ExitCode.USAGE)


def test_table_shows_what_was_filled(call, press):
    press.publish(press.vector("shown", session=-3), NOW)

    shown = call("--paper", "--once")

    assert "vectors taken: 1 applied" in shown
    assert "orders filled on paper" in shown
    assert "replay clock: the bars end on 2014-03-12" in shown


def test_running_gateway_trades_until_it_is_stopped(press, world, streams, valkey_url, redis_client):
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=""), world, namespace=streams.names.namespace)
    process = fleet.start("gateway", "--paper")
    try:
        press.publish(press.vector("live", session=-3), NOW)
        process.await_event("vector_taken", disposition="applied")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert process.events("order_filled")
    finally:
        fleet.end()

    folder = world / "data" / "paper" / streams.names.namespace / "paper"
    assert wait_until(lambda: any(folder.glob("*.parquet")), PATIENCE)
    redis_client.delete(f"{streams.names.namespace}:gateway:paper:book:{STRATEGY}")
