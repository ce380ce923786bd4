"""What a worker does with each answer of a server that will not do what was asked."""

import re
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.fleet import PATIENCE, Fleet
from tests.support.proxy import Proxy
from tests.support.servers import PrivateServers, connect_redis, copy_prepared, short_lived_directory
from tests.support.serving import Streams, open_client
from tests.support.world import WRONG, activate_world, served_from
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.registry.migrations import migrate

REQUEST = WRONG
#: Far more than four connections do that wait up to half a second between two tries; a hot loop does thousands.
MOST_TRIES_A_SECOND = 100

pytestmark = pytest.mark.timeout(180)


class AnsweringProxy(Proxy):
    """Answers every command with the same refusal while there is one."""

    refusal = b""
    refused = 0

    def _forward(self, key):
        if not self.refusal or key.sink.getpeername() != self.target:
            super()._forward(key)
            return
        commands = len(re.findall(rb"(?:^|\r\n)\*\d+\r\n", key.source.recv(65_536)))
        if not commands:
            self._close(key)
            return
        self.refused += commands
        key.source.sendall(self.refusal * commands)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Not asked here: connections of the module's worker, through the module's proxy, come and go with every test."""


@pytest.fixture(scope="module")
def servers(_prepared_stack):
    with short_lived_directory() as directory:
        copy_prepared(_prepared_stack, directory)
        made = PrivateServers(directory)
        migrate(made.endpoints.database_url)
        activate_world(made.endpoints.database_url)
        yield made
        made.close()


@pytest.fixture(scope="module")
def proxy(servers):
    made = AnsweringProxy(servers.endpoints.redis_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def worker(servers, proxy, tmp_path_factory, two_versions):
    endpoints = Endpoints(redis_url=proxy.url, database_url=servers.endpoints.database_url)
    fleet = Fleet(endpoints, tmp_path_factory.mktemp("fleet"), **served_from(two_versions))
    yield fleet.worker()
    fleet.end()


@pytest.fixture(scope="module")
def streams(servers):
    return Streams(servers.endpoints.redis_url, "signals")


@contextmanager
def replica(client):
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def other_password(client):
    password = client.config_get("requirepass")["requirepass"]
    client.config_set("requirepass", "another")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        client.config_set("requirepass", password)


@contextmanager
def disk_that_takes_no_snapshot(client):
    in_the_way = Path(client.config_get("dir")["dir"]) / "dump.rdb"
    in_the_way.mkdir()
    client.config_set("save", "3600 1000000")
    client.bgsave()
    assert wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", PATIENCE)
    try:
        yield
    finally:
        client.config_set("save", "")
        in_the_way.rmdir()


@contextmanager
def no_memory(client):
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def refusing(proxy, refusal):
    proxy.refusal = refusal + b"\r\n"
    try:
        yield
    finally:
        proxy.refusal = b""


#: The server's word to what makes a real one say it.
REAL = {
    "READONLY": replica,
    "NOAUTH": other_password,
    "MISCONF": disk_that_takes_no_snapshot,
    "OOM": no_memory,
}
#: Words that only a cluster, a replica or a great deal of data would make it say, as they stand in its source.
SPOKEN = {
    "LOADING": b"-LOADING Valkey is loading the dataset in memory",
    "MOVED": b"-MOVED 3999 127.0.0.1:7001",
    "CLUSTERDOWN": b"-CLUSTERDOWN The cluster is down",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS": b"-NOREPLICAS Not enough good replicas to write.",
    "TRYAGAIN": b"-TRYAGAIN Multiple keys request during rehashing of slot",
}
#: Words to what writes alone: the control stream can be read all the while.
READABLE = {"READONLY", "MISCONF", "OOM"}


@pytest.mark.parametrize("word", [*REAL, *SPOKEN])
def test_refusal_is_logged_once_waited_out_and_healed(worker, proxy, streams, word):
    # A full server still lets entries be read, so that only the heartbeat meets it while nothing is asked.
    whats = {"heartbeat"} if word == "OOM" else {"requests"}
    if word not in READABLE:
        whats.add("control")
    said_before, answered = len(worker.events("server_away")), len(streams.rejections())
    pongs = sum(event["kind"] == "worker.pong" for event in worker.events("fleet_event"))

    with REAL[word](streams.client) if word in REAL else refusing(proxy, SPOKEN[word]):
        assert wait_until(lambda: {(what, word) for what in whats} <= {*said(worker, said_before)}, PATIENCE)
        tries_a_second = rate_of_errors(streams.client, proxy)
    assert wait_until(lambda: {last_word(worker, what) for what in whats} == {"server_back"}, PATIENCE)
    streams.add(REQUEST)
    streams.client.xadd(streams.names.control, {"type": "ping"})

    assert wait_until(lambda: len(streams.rejections()) == answered + 1, PATIENCE)
    worker.await_event("fleet_event", pongs + 1, kind="worker.pong")
    assert tries_a_second < MOST_TRIES_A_SECOND
    assert max(Counter(said(worker, said_before)).values()) == 1


def said(worker, since):
    """Return which connection met which answer, line by line."""
    return [(line["what"], line["reason"]) for line in worker.events("server_away")[since:]]


def last_word(worker, what):
    """Return whether a connection was last said to be away or back."""
    states = ("server_away", "server_back")
    return [line["event"] for line in worker.events() if line["event"] in states and line["what"] == what][-1]


def rate_of_errors(client, proxy):
    """Return how often a second the server was asked in vain, over ten times."""

    def errors():
        return client.info("stats")["total_error_replies"] + proxy.refused

    first, begun = errors(), time.monotonic()
    assert wait_until(lambda: errors() >= first + 10, PATIENCE)
    return (errors() - first) / (time.monotonic() - begun)


@pytest.fixture
def old(servers, valkey_url):
    """A server of the same password as the one at `valkey_url`."""
    client = connect_redis(servers.endpoints.redis_url)
    password = client.config_get("requirepass")["requirepass"]
    client.config_set("requirepass", urlsplit(valkey_url).password)
    yield client
    client.config_set("requirepass", password)


@pytest.fixture
def name(servers, old, valkey_url):
    """The name of a server: it leads elsewhere after a failover, while connections to the old one stay open."""
    assert old.ping()
    address = urlsplit(servers.endpoints.redis_url).netloc.rpartition("@")[2]
    made = Proxy(f"redis://:{urlsplit(valkey_url).password}@{address}")
    yield made
    made.close()


def test_control_reader_that_may_not_read_reports_it_once_and_waits(servers, streams, tmp_path):
    """Everything else that it says is answered, so that only the read itself tells."""
    password, address = urlsplit(servers.endpoints.redis_url).password, servers.endpoints.redis_url.rpartition("@")[2]
    streams.client.execute_command("ACL", "SETUSER", "deaf", "on", f">{password}", "~*", "&*", "+@all")
    endpoints = Endpoints(redis_url=f"redis://deaf:{password}@{address}", database_url=servers.endpoints.database_url)
    fleet = Fleet(endpoints, tmp_path, worker_name="deaf")
    worker = fleet.worker()
    # Not before it starts: it would end with what is missing.
    streams.client.execute_command("ACL", "SETUSER", "deaf", "-xread")
    worker.await_event("server_away", what="control", reason="NOPERM")

    errors, begun = streams.client.info("stats")["total_error_replies"], time.monotonic()
    assert wait_until(lambda: streams.client.info("stats")["total_error_replies"] >= errors + 10, PATIENCE)
    rate = (streams.client.info("stats")["total_error_replies"] - errors) / (time.monotonic() - begun)

    streams.client.execute_command("ACL", "SETUSER", "deaf", "+xread")
    worker.await_event("server_back", what="control")
    streams.client.xadd(streams.names.control, {"type": "ping", "worker": "deaf"})
    worker.await_event("fleet_event", kind="worker.pong")
    fleet.end()
    assert len(worker.events("server_away")) == 1
    assert rate < MOST_TRIES_A_SECOND


def test_server_that_became_a_replica_is_left_for_the_one_its_name_leads_to(old, name, valkey_url):
    client = open_client(name.url, "test")
    client.set("here", "old")

    name.lead_to(valkey_url)
    with replica(old):
        with pytest.raises(StreamUnavailable, match="READONLY"):
            client.set("here", "new")
        client.set("here", "new")

    assert connect_redis(valkey_url).getdel("here") == b"new"


def test_control_reader_alone_at_an_old_server_follows_the_name(servers, old, name, valkey_url, namespace, tmp_path):
    """Nothing refuses a connection that only reads."""
    endpoints = Endpoints(redis_url=name.url, database_url=servers.endpoints.database_url)
    fleet = Fleet(endpoints, tmp_path, namespace=namespace, reconcile_seconds=0.5, worker_name="mover")
    worker = fleet.worker()

    name.lead_to(valkey_url)
    for client in old.client_list():
        if client["name"].startswith("mover:") and client["name"] != "mover:listener":
            old.client_kill_filter(_id=client["id"])
    control = Streams(valkey_url, namespace).names.control
    connect_redis(valkey_url).xadd(control, {"type": "ping"})

    worker.await_event("fleet_event", kind="worker.pong")
    fleet.end()
