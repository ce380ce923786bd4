"""The gateway with an account at Alpaca, against a stand-in that speaks its documented API."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import structlog
from typer.testing import CliRunner

from contracts import Signal, weights_digest
from contracts.codec import encode
from tests.support.alpaca import KEY, SECRET, alpaca
from tests.support.wire import make_vector
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.client import AlpacaBroker, AlpacaOptions, Disposition, GatewayOptions, SignalClient, broker_gateway
from worker.client import alpaca as client_of_alpaca

TOMORROW = datetime.now(UTC) + timedelta(days=1)
BOOK = {"AAPL": 1.0, "MSFT": -1.0}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(client_of_alpaca, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr("worker.client.gateway.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("worker.client.gateway.RETRY_MAX_SECONDS", 0.01)


@pytest.fixture
def account():
    with alpaca() as made:
        yield made


@pytest.fixture
def gateway(account, valkey_url, namespace, redis_client):
    made = AlpacaOptions(
        key_id=KEY, secret_key=SECRET, url=account.url, data_url=account.url, fill_seconds=0.1, timeout_seconds=5
    )
    with (
        SignalClient(valkey_url, namespace=namespace) as client,
        AlpacaBroker(made) as broker,
        broker_gateway(client, broker, name="alpaca", options=GatewayOptions(block_ms=20)) as running,
    ):
        yield running
    redis_client.delete(f"{namespace}:gateway:alpaca:book:alpha_baseline")


@pytest.fixture
def publish(streams):
    def add(request_id, weights=None, **changes):
        signals = tuple(
            Signal(symbol=symbol, predicted_return=0.0, rank=rank, target_weight=weight)
            for rank, (symbol, weight) in enumerate((BOOK if weights is None else weights).items(), start=1)
        )
        values = {"valid_until": TOMORROW, "weights_sha256": weights_digest(signals), **changes}
        vector = make_vector(request_id=request_id, weights=signals, **values)
        streams.client.xadd(streams.names.results, encode(vector))

    return add


def until_applied(gateway, most=20):
    """Take the vector until it is applied, and return what became of it each time."""
    taken = []
    while Disposition.APPLIED not in taken and len(taken) < most:
        taken += gateway.run_once()
    return taken


def test_vector_becomes_the_accounts_positions(gateway, account, publish):
    publish("r-1")

    assert gateway.run_once() == [Disposition.APPLIED]

    # Half of the equity of 200,000 a leg.
    assert account.positions == {"AAPL": Decimal(1000), "MSFT": Decimal(-2000)}
    assert {order["time_in_force"] for order in account.orders.values()} == {"day"}


def test_lost_reply_costs_no_second_order(gateway, account, publish):
    account.troubles = [0]
    publish("r-1")

    assert until_applied(gateway) == [Disposition.FAILED, Disposition.APPLIED]

    assert len(account.orders) == 2
    assert account.positions == {"AAPL": Decimal(1000), "MSFT": Decimal(-2000)}


def test_lost_reply_outside_of_trading_hours_costs_no_second_order(gateway, account, publish):
    account.open_market = False
    account.troubles = [0]
    publish("r-1")

    assert until_applied(gateway) == [Disposition.FAILED, Disposition.APPLIED]

    assert sorted((order["symbol"], order["qty"]) for order in account.orders.values()) == [
        ("AAPL", "1000"),
        ("MSFT", "2000"),
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_limit_or_failure_is_tried_again(gateway, account, publish, status):
    account.troubles = [status, status]
    publish("r-1")

    assert until_applied(gateway) == [Disposition.FAILED, Disposition.FAILED, Disposition.APPLIED]

    assert len(account.orders) == 2


def test_open_orders_count_as_held(gateway, account, publish):
    account.open_market = False
    publish("r-1", {"AAPL": 1.0})
    publish("r-2", {"AAPL": 0.5}, as_of="2013-02-04")

    assert gateway.run_once() == [Disposition.APPLIED, Disposition.APPLIED]

    assert [(order["side"], order["qty"]) for order in account.orders.values()] == [("buy", "1000"), ("sell", "500")]


def test_other_side_is_opened_once_the_first_is_closed(gateway, account, publish):
    account.positions = {"AAPL": Decimal(10)}
    publish("r-1", {"AAPL": -1.0})

    assert gateway.run_once() == [Disposition.APPLIED]

    assert [(order["side"], order["qty"]) for order in account.orders.values()] == [("sell", "10"), ("sell", "1000")]
    assert account.positions == {"AAPL": Decimal(-1000)}


def test_other_side_waits_until_the_first_is_closed(gateway, account, publish):
    account.positions, account.open_market = {"AAPL": Decimal(10)}, False
    publish("r-1", {"AAPL": -1.0})

    assert gateway.run_once() == [Disposition.FAILED]
    (closing,) = account.orders
    account.fill(closing)
    account.open_market = True

    assert Disposition.APPLIED in until_applied(gateway)
    assert account.positions == {"AAPL": Decimal(-1000)}


def test_refused_order_costs_no_other_and_is_an_alarm(gateway, account, publish):
    account.refused = {"AAPL": "insufficient buying power"}
    publish("r-1")

    with structlog.testing.capture_logs() as logs:
        assert gateway.run_once() == [Disposition.FAILED]

    assert account.positions == {"MSFT": Decimal(-2000)}
    (refused,) = [line for line in logs if line["event"] == "order_refused"]
    assert (refused["symbol"], refused["reason"]) == ("AAPL", "insufficient buying power")
    account.refused = {}
    assert until_applied(gateway)[-1] == Disposition.APPLIED
    assert account.positions == {"AAPL": Decimal(1000), "MSFT": Decimal(-2000)}


def test_symbol_without_a_price_is_left_alone(gateway, account, publish):
    del account.prices["MSFT"]
    publish("r-1")

    assert gateway.run_once() == [Disposition.APPLIED]

    assert account.positions == {"AAPL": Decimal(1000)}


def test_blocked_account_places_nothing(gateway, account, publish):
    account.blocked = True
    publish("r-1")

    assert gateway.run_once() == [Disposition.FAILED]

    assert account.orders == {}


def test_wrong_keys_are_named_and_the_secret_is_not(account, valkey_url, namespace, publish):
    publish("r-1")
    options = AlpacaOptions(key_id=KEY, secret_key="not-" + SECRET, url=account.url, data_url=account.url)
    with (
        SignalClient(valkey_url, namespace=namespace) as client,
        AlpacaBroker(options) as broker,
        broker_gateway(client, broker, name="alpaca", options=GatewayOptions(block_ms=20)) as gateway,
        structlog.testing.capture_logs() as logs,
    ):
        assert gateway.run_once() == [Disposition.FAILED]

    (line,) = [line for line in logs if line["event"] == "application_failed"]
    assert "application_failed" in line["event"]
    assert SECRET not in repr(options)
    assert SECRET not in repr(logs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "https://api.alpaca.markets"}, "not the paper endpoint"),
        ({"url": "http://paper-api.alpaca.markets"}, "must be https"),
        ({"data_url": "http://data.alpaca.markets"}, "must be https"),
        ({"secret_key": ""}, "both needed"),
    ],
)
def test_account_that_was_not_meant_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        AlpacaOptions(**{"key_id": KEY, "secret_key": SECRET, **fields})


def test_live_account_needs_a_statement():
    assert AlpacaOptions(key_id=KEY, secret_key=SECRET, url="https://api.alpaca.markets", live=True).live


@pytest.mark.parametrize(
    ("environment", "words", "sentence"),
    [
        ({}, ("--alpaca",), "SIGNALS_ALPACA_SECRET_KEY are not set"),
        ({}, ("--alpaca", "--paper"), "one of them"),
        ({}, ("--paper", "--live"), "--live goes with --alpaca"),
        (
            {"SIGNALS_ALPACA_KEY_ID": KEY, "SIGNALS_ALPACA_SECRET_KEY": SECRET, "SIGNALS_ALPACA_URL": "https://x.org"},
            ("--alpaca",),
            "not the paper endpoint",
        ),
    ],
)
def test_verb_states_what_is_missing(valkey_url, environment, words, sentence):
    done = CliRunner(env={"REDIS_URL": valkey_url, **environment}).invoke(app, ["gateway", "--once", *words])

    assert done.exit_code == ExitCode.USAGE
    assert sentence in done.stderr
    assert SECRET not in done.output


def test_verb_trades_at_the_account(account, valkey_url, namespace, publish, redis_client):
    publish("r-1")
    environment = {
        "SIGNALS_ALPACA_KEY_ID": KEY,
        "SIGNALS_ALPACA_SECRET_KEY": SECRET,
        "SIGNALS_ALPACA_URL": account.url,
        "SIGNALS_ALPACA_DATA_URL": account.url,
    }
    call = CliRunner(env={"REDIS_URL": valkey_url, "SIGNALS_NAMESPACE": namespace, **environment})

    done = call.invoke(app, ["gateway", "--alpaca", "--once", "--name", "desk", "--equity", "1000"])

    assert done.exit_code == 0, done.output
    assert "vectors taken: 1 applied" in done.stdout
    assert account.positions == {"AAPL": Decimal(10), "MSFT": Decimal(-20)}
    redis_client.delete(f"{namespace}:gateway:desk:book:alpha_baseline")
