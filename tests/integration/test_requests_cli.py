import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from contracts import GROUP, Heartbeat, StreamNames
from contracts.codec import encode
from tests.support.serving import put_hash
from tests.support.wire import make_rejection, make_vector
from worker.cli.main import app
from worker.operations import pending as operations

REQUEST = {"strategy": "alpha_baseline", "symbols": "AAPL", "request_id": "r-1"}


@pytest.fixture
def names(namespace):
    return StreamNames(namespace)


@pytest.fixture
def cli(monkeypatch, valkey_url, namespace):
    """Calls a verb and returns what it printed; with `--json`, as values."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere")
    monkeypatch.setenv("COLUMNS", "300")

    def call(*words, code=0):
        done = CliRunner().invoke(app, ["requests", *words, "--namespace", namespace])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words else done.output

    return call


@pytest.fixture
def add(redis_client, names):
    return lambda **fields: redis_client.xadd(names.requests, REQUEST | fields).decode()


@pytest.fixture
def deliver(redis_client, names):
    """Delivers every new request to a consumer, with an idle time and a delivery count."""

    def to(consumer, *, idle_ms=0, deliveries=1):
        if not redis_client.exists(names.requests) or not redis_client.xinfo_groups(names.requests):
            redis_client.xgroup_create(names.requests, GROUP, id="0", mkstream=True)
        rows = redis_client.xreadgroup(GROUP, consumer, {names.requests: ">"})
        for entry, _ in rows[0][1]:
            redis_client.xclaim(
                names.requests, GROUP, consumer, 0, [entry], idle=idle_ms, retrycount=deliveries, justid=True
            )

    return to


def beat(redis_client, names, worker, **changes):
    values = {
        "worker": worker, "state": "serving", "host": "h", "pid": 1, "started_at": datetime.now(UTC),
        "beaten_at": datetime.now(UTC), "code_version": "1",
    }  # fmt: skip
    heartbeat = Heartbeat.model_validate({**values, **changes})
    put_hash(redis_client, names.worker(worker), encode(heartbeat))


def test_pending_requests_are_listed_beside_their_consumers(cli, add, deliver, redis_client, names):
    add(request_id="r-1")
    deliver("dead", idle_ms=60_000, deliveries=3)
    add(request_id="r-2")
    deliver("alive", idle_ms=10)
    add(request_id="r-3")
    beat(redis_client, names, "alive", state="draining", reason="told to stop")
    put_hash(redis_client, names.request("r-1"), {"last_error": "ValueError: x"})

    found = cli("pending", "--json")

    assert (found["total"], found["unread"]) == (2, 1)
    first, second = found["requests"]
    assert (first["request_id"], first["holder"]["name"], first["holder"]["state"]) == ("r-1", "dead", "gone")
    assert (first["deliveries"], first["last_error"]) == (3, "ValueError: x")
    assert first["idle_ms"] >= 60_000
    assert (second["holder"]["state"], second["holder"]["reason"]) == ("draining", "told to stop")
    assert second["holder"]["beaten_ms_ago"] is not None
    assert second["deliveries"] == 1


def test_pending_table_names_it_in_words(cli, add, deliver, redis_client, names):
    add()
    deliver("dead", idle_ms=90_000)
    add(request_id="r-2")
    put_hash(redis_client, names.request("r-1"), {"last_error": "OSError: [disk] full"})

    said = cli("pending")

    assert "gone" in said
    assert "1.5m" in said
    assert "OSError: [disk] full" in said
    assert "pending: 1, shown: 1, not read yet: 1" in said


def test_looking_changes_neither_owner_nor_delivery_count(cli, add, deliver, redis_client, names):
    add()
    deliver("w", idle_ms=60_000, deliveries=2)

    cli("pending")
    cli("show", "r-1")

    (row,) = redis_client.xpending_range(names.requests, GROUP, min="-", max="+", count=1)
    assert (row["consumer"], row["times_delivered"]) == (b"w", 2)
    assert row["time_since_delivered"] >= 60_000


def test_request_cut_while_pending_reports_it(cli, add, deliver, redis_client, names):
    entry = add()
    deliver("w")
    redis_client.xdel(names.requests, entry)

    (row,) = cli("pending", "--json")["requests"]

    assert row["trimmed"]
    assert row["request_id"] == entry
    assert "was cut from the stream" in cli("pending")


def test_nothing_requested_yet_is_no_error(cli, add):
    assert "pending: 0, shown: 0, not read yet: 0" in cli("pending")

    add()

    assert "pending: 0, shown: 0, not read yet: 1" in cli("pending")


def test_heartbeat_that_cannot_be_read_is_named_so(cli, add, deliver, redis_client, names):
    add()
    deliver("odd")
    put_hash(redis_client, names.worker("odd"), {"state": "dancing"})

    (row,) = cli("pending", "--json")["requests"]

    assert row["holder"]["state"] == "unreadable"


@pytest.mark.parametrize("answered", [True, False])
def test_answered_request_shows_what_became_of_it(cli, redis_client, names, answered):
    stream, outcome = (names.results, make_vector()) if answered else (names.rejections, make_rejection())
    entry = redis_client.xadd(stream, encode(outcome))
    known = {"state": "done" if answered else "rejected", "stream": stream, "entry": entry, "redrives": 2}
    put_hash(redis_client, names.request("r-1"), known)
    redis_client.pexpire(names.request("r-1"), 3_600_000)

    found = cli("show", "r-1", "--json")

    assert found["remembered"]["redrives"] == "2"
    assert 0 < found["forgotten_in_ms"] <= 3_600_000
    assert found["outcome"]["request_id"] == "r-1"
    assert ("weights" in found["outcome"]) is answered
    assert ("AAPL" if answered else "unknown_field") in cli("show", "r-1")


def test_pending_request_is_shown_with_its_holder(cli, add, deliver):
    add()
    deliver("w")

    found = cli("show", "r-1", "--json")

    assert found["pending"]["holder"]["name"] == "w"
    assert found["outcome"] is None
    assert "gone" in cli("show", "r-1")


def test_outcome_cut_from_its_stream_is_reported(cli, redis_client, names):
    put_hash(redis_client, names.request("r-1"), {"state": "done", "stream": names.results, "entry": "5-1"})

    assert "has been cut from its stream" in cli("show", "r-1")


@pytest.mark.parametrize("grouped", [False, True])
def test_request_that_nobody_was_given_yet_is_shown_with_its_place(cli, add, deliver, grouped):
    if grouped:
        add(request_id="before")
        deliver("w")
    add(request_id="ahead")
    entry = add()

    found = cli("show", "r-1", "--json")

    assert (found["waiting"]["entry_id"], found["waiting"]["ahead"]) == (entry, 1)
    assert (found["pending"], found["outcome"]) == (None, None)
    assert "not delivered yet, 1 before it" in cli("show", "r-1")


def test_request_without_an_id_is_found_by_its_entry(cli, redis_client, names):
    entry = redis_client.xadd(names.requests, {"strategy": "alpha_baseline"}).decode()

    assert cli("show", entry, "--json")["waiting"]["ahead"] == 0


@pytest.mark.parametrize(("pending", "waiting"), [(2, 100_000), (1000, 2)])
def test_search_that_ended_early_claims_nothing_of_the_rest(cli, add, deliver, monkeypatch, pending, waiting):
    monkeypatch.setattr(operations, "PENDING_SEARCHED", pending)
    monkeypatch.setattr(operations, "WAITING_SEARCHED", waiting)
    monkeypatch.setattr(operations, "PAGE", 2)
    for number in range(5):
        add(request_id=f"before-{number}")
        if waiting > 2:
            deliver("w")
    add()

    shown = cli("show", "r-9", code=3)

    assert f"it is not among the oldest {pending:,} that are pending and the first {waiting:,} that wait" in shown


def test_request_that_was_answered_while_it_was_looked_for_is_shown(cli, redis_client, names, monkeypatch):
    """It is on the list of neither by then, and its record is looked at last."""
    looked = operations.Requests._waiting

    def answered(requests, request_id):
        put_hash(redis_client, names.request("r-1"), {"state": "done", "stream": names.results, "entry": "5-1"})
        return looked(requests, request_id)

    monkeypatch.setattr(operations.Requests, "_waiting", answered)

    assert "has been cut from its stream" in cli("show", "r-1")


def test_unknown_request_is_not_found(cli):
    assert "nothing is remembered of request r-9" in cli("show", "r-9", code=3)
