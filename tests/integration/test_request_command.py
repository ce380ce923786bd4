import json
import shutil
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from contracts import GROUP, Heartbeat
from contracts.codec import encode
from tests.support.fleet import Fleet
from tests.support.serving import NOW, Streams, put_hash
from tests.support.world import STRATEGY, build_world, register
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.embedded import Endpoints
from worker.registry.registry import Registry


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def worker(valkey_url, database_url, namespace, world, tmp_path):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    folder = shutil.copytree(world, tmp_path / "work")
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), folder, namespace=namespace)
    yield fleet.worker()
    fleet.end()


@pytest.fixture
def ask(monkeypatch, valkey_url, database_url, namespace):
    """Type `signal-worker request …` in the environment of these servers."""
    for name, value in {
        "REDIS_URL": valkey_url,
        "DATABASE_URL": database_url,
        "SIGNALS_NAMESPACE": namespace,
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(app, ["request", *words])


@pytest.mark.usefixtures("worker")
def test_answer_is_shown_as_a_table_with_its_lineage(ask):
    shown = ask("AAPL", "IBM", "MSFT", "--wait")

    assert shown.exit_code == 0
    assert "alpha_baseline v1, as of 2014-03-12" in shown.stdout
    assert all(symbol in shown.stdout for symbol in ("AAPL", "IBM", "MSFT", "+1.0000", "-1.0000"))
    assert "close of T+1 to close of T+2" in shown.stdout


@pytest.mark.usefixtures("worker")
def test_answer_as_json_is_the_vector(ask):
    vector = json.loads(ask("AAPL", "IBM", "--wait", "--json", "--top-n", "1", "--request-id", "mine").stdout)

    assert vector["request_id"] == "mine"
    assert [signal["target_weight"] for signal in vector["weights"]] == [1.0, -1.0]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("typed", [("AAPL,MSFT",), ("AAPL,MSFT", "IBM"), ("AAPL", "MSFT, IBM")])
def test_symbols_are_taken_as_on_the_stream_too(ask, typed):
    vector = json.loads(ask(*typed, "--wait", "--json", "--top-n", "1", "--bottom-n", "1").stdout)

    wanted = [symbol.strip() for text in typed for symbol in text.split(",")]
    assert sorted(signal["symbol"] for signal in vector["weights"]) == sorted(wanted)


@pytest.mark.usefixtures("worker")
def test_symbols_in_another_case_are_proposed(ask):
    shown = ask("Aapl,IBM", "--wait")

    assert shown.exit_code == ExitCode.REJECTED
    assert "did you mean AAPL?" in shown.stdout


@pytest.mark.usefixtures("worker")
def test_misspelt_strategy_is_proposed(ask):
    shown = ask("AAPL", "--wait", "--strategy", "alpha_basline")

    assert shown.exit_code == ExitCode.REJECTED
    assert f"did you mean {STRATEGY}?" in shown.stdout


def test_place_without_a_symbol_is_refused(ask):
    assert ask("AAPL,,MSFT").exit_code == ExitCode.USAGE


@pytest.mark.usefixtures("worker")
def test_symbols_left_out_are_named_below_the_table(ask):
    shown = ask("AAPL", "IBM", "--as-of", "2013-02-01", "--on-ineligible", "exclude", "--wait")

    assert shown.exit_code == ExitCode.REJECTED
    assert "nothing_to_price" in shown.stdout


@pytest.mark.usefixtures("worker")
def test_rejection_is_a_sentence_and_an_exit_code_of_its_own(ask):
    shown = ask("ZZZZ", "--wait")

    assert shown.exit_code == ExitCode.REJECTED
    assert "unknown_symbol" in shown.stdout
    assert "ZZZZ" in shown.stdout


def test_request_without_waiting_prints_its_id(ask, valkey_url, namespace):
    shown = ask("AAPL")

    assert shown.exit_code == 0
    ((_, fields),) = Streams(valkey_url, namespace).client.xread({f"{namespace}:requests": "0"})[0][1]
    assert shown.stdout.strip().encode() in fields


def test_impossible_option_is_refused_before_anything_is_sent(ask, valkey_url, namespace):
    shown = ask("AAPL", "--as-of", "someday")

    assert shown.exit_code == 2
    assert "as_of was 'someday'" in shown.stderr
    assert not Streams(valkey_url, namespace).client.exists(f"{namespace}:requests")


def test_nobody_answering_is_reported_after_the_timeout(ask):
    shown = ask("AAPL", "--wait", "--timeout", "0.1")

    assert shown.exit_code == ExitCode.TIMEOUT
    assert "has no outcome after 0.1 s: no worker lives in " in shown.stderr
    assert "`signal-worker run` starts one" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


BEAT = {"worker": "w1", "host": "h", "pid": 1, "started_at": NOW, "code_version": "1"}


def beat(streams, state, **changes):
    heartbeat = Heartbeat.model_validate(BEAT | {"state": state, "beaten_at": datetime.now(UTC)} | changes)
    put_hash(streams.client, streams.names.worker(heartbeat.worker), encode(heartbeat))


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ([("paused", {})], "has no outcome after 0.1 s: paused: w1; `signal-worker control resume` ends it"),
        (
            [("starting", {"reason": "no snapshot in data"}), ("paused", {"worker": "w2"})],
            "no worker is ready: w1 starting (no snapshot in data); w2 paused",
        ),
        ([("serving", {"strategies": "other"})], "serves alpha_baseline: w1"),
        ([("serving", {})], "not delivered yet, the next one"),
        # Bars that are older than the last session are a reason, and it answers all the same.
        ([("serving", {"reason": "the snapshot ends on 2013-03-01"})], "not delivered yet, the next one"),
    ],
)
def test_timeout_states_why_nobody_answered(ask, streams, states, sentence):
    for state, changes in states:
        beat(streams, state, **changes)

    shown = ask("AAPL", "--wait", "--timeout", "0.1")

    assert shown.exit_code == ExitCode.TIMEOUT
    assert sentence in shown.stderr
    assert "is a worker running" not in shown.stderr


def test_timeout_names_who_has_the_request(ask, streams):
    streams.client.xgroup_create(streams.names.requests, GROUP, id="0", mkstream=True)
    beat(streams, "serving")
    ask("AAPL", "--request-id", "r")
    streams.client.xreadgroup(GROUP, "w1", {streams.names.requests: ">"})

    shown = ask("AAPL", "--wait", "--timeout", "0.1", "--request-id", "r")

    assert "w1 (serving) was given it, delivery 1, idle for " in shown.stderr


def test_misspelt_setting_ends_every_verb_with_a_sentence(ask, monkeypatch):
    monkeypatch.setenv("SIGNALS_NAMESPACES", "x")

    shown = ask("AAPL")

    assert shown.exit_code == 2
    assert "did you mean SIGNALS_NAMESPACE?" in shown.stderr
