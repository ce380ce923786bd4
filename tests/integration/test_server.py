import socket
import threading

import pytest
import structlog

from worker.errors import GroupVanished, StreamUnavailable
from worker.retry import Outage, RetryPolicy
from worker.transport.client import connect
from worker.transport.scripts import RenewLeases

#: Seconds of silence, seconds between two questions, questions: a peer is given up after six.
KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}


@pytest.fixture
def client(valkey_url):
    made = connect(valkey_url, "test")
    yield made
    made.close()


def test_vanished_group_is_distinguished_from_an_outage(client, namespace):
    with pytest.raises(GroupVanished, match="NOGROUP"):
        client.execute_command("XREADGROUP", "GROUP", "g", "c", "STREAMS", f"{namespace}:s", ">")


def test_refusal_of_the_server_names_its_own_word(client, namespace):
    client.set(f"{namespace}:text", "x", ex=600)

    with pytest.raises(StreamUnavailable) as refused:
        client.xadd(f"{namespace}:text", {"a": "b"})

    assert refused.value.reason == "WRONGTYPE"


def test_wrong_password_is_an_outage_with_its_reason(valkey_url, free_port):
    wrong = connect(f"redis://:wrong@{valkey_url.rpartition('@')[2]}", "test")

    with pytest.raises(StreamUnavailable, match="NOAUTH"):
        wrong.ping()

    closed = connect(f"redis://127.0.0.1:{free_port}", "test")
    with pytest.raises(StreamUnavailable, match="ConnectionError"):
        closed.ping()


def test_driver_retries_nothing(client):
    retry = client.connection_pool.connection_kwargs["retry"]

    assert retry.get_retries() == 0


def test_blocking_connection_waits_longer_than_its_block(valkey_url):
    reader = connect(valkey_url, "test", block_ms=6000)

    assert reader.connection_pool.connection_kwargs["socket_timeout"] > 6.0


def test_doubled_fields_reach_the_reader_in_their_order(client, namespace):
    client.execute_command("XADD", f"{namespace}:s", "*", "a", "1", "a", "2")

    ((_, flat),) = client.execute_command("XRANGE", f"{namespace}:s", "-", "+")

    assert flat == [b"a", b"1", b"a", b"2"]


def test_script_survives_a_flushed_cache(client, namespace):
    client.xgroup_create(f"{namespace}:s", "g", mkstream=True)
    client.script_flush()

    assert client.run(RenewLeases(requests=f"{namespace}:s", group="g", consumer="c", entry_ids=["1-0"])) == ()


def test_errors_of_several_commands_at_once_are_ours_too(client, namespace):
    client.set(f"{namespace}:text", "x", ex=60)

    with client.pipeline(transaction=False) as pipe:
        pipe.xadd(f"{namespace}:text", {"a": "b"})
        with pytest.raises(StreamUnavailable) as refused:
            pipe.execute()

    assert refused.value.reason == "WRONGTYPE"


def test_outage_is_logged_once_and_again_only_when_its_reason_changes():
    outage = Outage("requests")

    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            outage.away(StreamUnavailable("ConnectionError", "refused"))
        outage.away(StreamUnavailable("LOADING", "reading the log"))
        outage.back()
        outage.back()

    assert [(log["event"], log.get("reason")) for log in logs] == [
        ("server_away", "ConnectionError"),
        ("server_away", "LOADING"),
        ("server_back", None),
    ]
    assert outage.count == 1


def test_reasons_that_take_turns_are_logged_once_each():
    outage = Outage("requests")

    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            outage.away(StreamUnavailable("ConnectionError", "refused"))
            outage.away(StreamUnavailable("TimeoutError", "no reply"))

    assert [log["reason"] for log in logs] == ["ConnectionError", "TimeoutError"]


def test_peer_that_is_gone_without_a_word_is_found_within_seconds(client):
    client.ping()

    connection = client.connection_pool.get_connection()
    kept = {name: connection._sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE}

    assert kept == KEEPALIVE
    assert sum((kept["TCP_KEEPIDLE"], kept["TCP_KEEPINTVL"] * kept["TCP_KEEPCNT"])) < 10
    client.connection_pool.release(connection)


def test_patience_tries_until_the_server_is_back():
    answers = [StreamUnavailable("ConnectionError", "refused")] * 3 + ["done"]
    outage = Outage("requests")

    def command():
        answer = answers.pop(0)
        if isinstance(answer, StreamUnavailable):
            raise answer
        return answer

    assert RetryPolicy(threading.Event(), outage, 0.01).call(command) == "done"
    assert not outage.lasting
    assert outage.count == 1


def test_outage_that_lasts_is_logged_again_once_a_minute(monkeypatch):
    clock = iter([0.0, 1.0, 59.0, 61.0, 90.0, 120.0, 122.0])
    monkeypatch.setattr("worker.retry.time.monotonic", lambda: next(clock))
    outage = Outage("requests")

    with structlog.testing.capture_logs() as logs:
        for _ in range(7):
            outage.away(StreamUnavailable("ConnectionError", "refused"))

    assert len(logs) == 3


def test_pauses_between_tries_grow_to_their_cap_and_differ(monkeypatch):
    pauses = []
    monkeypatch.setattr("worker.retry.sleep_using_event", lambda _stop: pauses.append)
    answers = iter([StreamUnavailable("ConnectionError", "refused")] * 400 + ["done"])

    def command():
        answer = next(answers)
        if isinstance(answer, StreamUnavailable):
            raise answer
        return answer

    assert RetryPolicy(threading.Event(), Outage("requests"), 0.5).call(command) == "done"

    assert max(pauses[:2]) <= 0.1
    assert 0.4 < max(pauses) <= 0.5
    assert len(set(pauses)) > 390


def test_retrying_ends_when_the_worker_is_stopped():
    stop = threading.Event()
    stop.set()

    def away():
        raise StreamUnavailable("ConnectionError", "refused")

    with pytest.raises(StreamUnavailable):
        RetryPolicy(stop, Outage("requests"), 60.0).call(away)


def test_other_errors_are_not_waited_out():
    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        RetryPolicy(threading.Event(), Outage("requests"), 60.0).call(broken)
