"""What a worker announces is true when it is announced: whoever reads an event may act on it at once."""

import signal
import threading

import pytest
import redis

from contracts import GROUP
from tests.support.fleet import PATIENCE, Fleet
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def commands(valkey_url, redis_client, namespace):
    """The commands with this test's namespace in the order in which the server executed them."""
    seen, end = [], f"{namespace} ends"

    def follow():
        with redis.Redis.from_url(valkey_url, socket_timeout=PATIENCE) as client, client.monitor() as monitor:
            seen.append("MONITOR")
            while end not in seen[-1]:
                command = monitor.next_command()["command"]
                if namespace in command:
                    seen.append(command)

    thread = threading.Thread(target=follow)
    thread.start()
    assert wait_until(lambda: seen != [], PATIENCE)
    yield seen
    redis_client.echo(end)
    thread.join(PATIENCE)


def place(commands, *words):
    """Return where the first command with all of these words is."""
    return next(number for number, command in enumerate(commands) if all(word in command for word in words))


def test_started_comes_after_group_and_heartbeat_and_drained_after_leaving(
    commands, redis_client, streams, valkey_url, database_url, namespace, tmp_path
):
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), tmp_path, namespace=namespace)
    try:
        worker = fleet.worker(heartbeat_seconds=60)
        assert redis_client.xinfo_groups(streams.names.requests)[0]["name"] == GROUP.encode()
        assert redis_client.xrange(streams.names.events)[0][1][b"type"] == b"worker.started"
        (key,) = redis_client.keys(streams.names.worker("*"))
        assert redis_client.hget(key, "state") != b"starting"
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    finally:
        fleet.end()

    assert wait_until(lambda: any("worker.drained" in command for command in commands), PATIENCE)
    started = place(commands, "XADD", streams.names.events, "worker.started")
    assert place(commands, "XGROUP CREATE", streams.names.requests) < started
    heartbeats = [number for number, command in enumerate(commands) if "HSET" in command and "state " in command]
    assert any("state starting" not in commands[number] for number in heartbeats if number < started)
    drained = place(commands, "XADD", streams.names.events, "worker.drained")
    assert place(commands, "XGROUP DELCONSUMER", streams.names.requests) < drained
