"""What each role needs of both servers: found missing at the start, in one sentence, and enough where it is there."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from contracts.streams import StreamNames
from tests.support.fleet import PATIENCE, Fleet
from tests.support.pooler import TransactionPooler
from tests.support.serving import Streams
from tests.support.world import STRATEGY, SYMBOLS, register
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.client import SignalClient
from worker.client.gateway import Gateway
from worker.embedded import Endpoints, identity, valkey
from worker.embedded.processes import wait_until
from worker.errors import SettingsError
from worker.registry import requirements
from worker.registry.migrations import migrate
from worker.registry.registry import Registry
from worker.registry.requirements import RegistryRole, registry_findings, require_registry, require_session
from worker.transport.client import connect
from worker.transport.requirements import StreamRole, commands_of, require_stream_server, stream_findings

PASSWORD = "a-secret-of-the-test"  # noqa: S105 - of logins that end with their test
#: What every connection and every probe sends.
COMMON = ("+multi", "+discard", "+exec", "+info", "+eval", "+evalsha", "+client|setname", "+client|setinfo", "+select",
          "+ping")  # fmt: skip


@contextlib.contextmanager
def login(client, url, namespace, rules):
    """Give the URL of a login with these rules alone on the keys of the namespace."""
    name = f"login-{secrets.token_hex(4)}"
    client.execute_command(
        "ACL", "SETUSER", name, "on", f">{PASSWORD}", "resetkeys", f"~{namespace}:*", "-@all", *COMMON, *rules
    )
    parts = urlsplit(url)
    try:
        yield f"redis://{name}:{PASSWORD}@{parts.hostname}:{parts.port}/0"
    finally:
        client.execute_command("ACL", "DELUSER", name)


def rules_of(role, namespace):
    """Return the rules of exactly the commands of a role."""
    return sorted({f"+{spelled(command).lower()}" for command in commands_of(role, StreamNames(namespace))})


def spelled(command):
    return "|".join(command[:2]) if command[0] in {"XGROUP", "XINFO"} else command[0]


@pytest.mark.parametrize("role", StreamRole)
def test_login_with_exactly_the_commands_of_a_role_is_enough(redis_client, valkey_url, namespace, role):
    with login(redis_client, valkey_url, namespace, rules_of(role, namespace)) as url, connect(url, "t") as client:
        require_stream_server(client, StreamNames(namespace), role)

    assert redis_client.keys(f"{namespace}:*") == []


@pytest.mark.parametrize("role", StreamRole)
def test_each_command_that_is_missing_is_named(redis_client, valkey_url, namespace, role):
    rules = rules_of(role, namespace)
    for missing in set(rules) - {*COMMON}:
        rest = [rule for rule in rules if rule != missing]
        with (
            login(redis_client, valkey_url, namespace, rest) as url,
            connect(url, "t") as client,
            pytest.raises(SettingsError, match=f"{role} needs .*may not ") as error,
        ):
            require_stream_server(client, StreamNames(namespace), role)
        assert missing[1:].replace("|", " ").upper() in str(error.value)
        assert PASSWORD not in str(error.value)


def test_keys_of_another_namespace_are_missed(redis_client, valkey_url, namespace):
    rules = rules_of(StreamRole.PRODUCER, namespace)
    with (
        login(redis_client, valkey_url, f"{namespace}-other", rules) as url,
        connect(url, "t") as client,
        pytest.raises(SettingsError, match=f"XADD {namespace}:requests"),
    ):
        require_stream_server(client, StreamNames(namespace), StreamRole.PRODUCER)


def test_login_that_may_not_look_is_no_fault(redis_client, valkey_url, namespace):
    rules = [*rules_of(StreamRole.PRODUCER, namespace), "-multi", "-info"]
    with login(redis_client, valkey_url, namespace, rules) as url, connect(url, "t") as client:
        findings = stream_findings(client, StreamNames(namespace), StreamRole.PRODUCER)

    assert [finding.met for finding in findings] == [None, None]


@pytest.mark.parametrize("role", [StreamRole.WORKER, StreamRole.GATEWAY])
def test_login_without_scripts_is_named(redis_client, valkey_url, namespace, role):
    rules = [*rules_of(role, namespace), "-eval"]
    with (
        login(redis_client, valkey_url, namespace, rules) as url,
        connect(url, "t") as client,
        pytest.raises(SettingsError, match=r"needs scripts .*EVAL is refused"),
    ):
        require_stream_server(client, StreamNames(namespace), role)


@pytest.fixture
def fleet(valkey_url, database_url, namespace, two_versions, tmp_path):
    shutil.copytree(two_versions, tmp_path / "world")
    started = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), tmp_path / "world", namespace=namespace)
    yield started
    started.end()


def test_worker_and_publisher_serve_with_exactly_the_commands_of_their_roles(
    fleet, redis_client, valkey_url, namespace, database_url
):
    streams = Streams(valkey_url, namespace)
    with (
        login(redis_client, valkey_url, namespace, rules_of(StreamRole.WORKER, namespace)) as worker_url,
        login(redis_client, valkey_url, namespace, rules_of(StreamRole.PUBLISHER, namespace)) as publisher_url,
        login(redis_client, valkey_url, namespace, rules_of(StreamRole.PRODUCER, namespace)) as producer_url,
        Registry(database_url) as registry,
    ):
        register(registry, "v1")
        fleet.environment["REDIS_URL"] = publisher_url
        publisher = fleet.start("publish-registry")
        fleet.environment["REDIS_URL"] = worker_url
        worker = fleet.worker(janitor_interval_seconds="0.2")
        activation = registry.activate(STRATEGY, "v1").activation
        worker.await_event("fleet_event", kind="models.loaded", activation=activation)
        with SignalClient(producer_url, namespace=namespace) as producer:
            outcomes = [
                producer.result(producer.submit(strategy=STRATEGY, symbols=SYMBOLS), timeout=PATIENCE) for _ in range(3)
            ]
        assert wait_until(lambda: redis_client.exists(f"{namespace}:janitor"), PATIENCE)
        commands = [" ".join(each.cmdline()) for each in psutil.process_iter() if each.is_running()]
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
        worker.await_event("server_back")
        worker.end()
        publisher.end()

    assert {outcome.model_version for outcome in outcomes} == {"v1"}
    assert streams.pending() == 0
    printed = worker.log.read_text(encoding="utf-8") + publisher.log.read_text(encoding="utf-8")
    assert "NOPERM" not in printed
    for secret in (PASSWORD, conninfo_to_dict(database_url)["password"]):
        assert secret not in printed
        assert not [command for command in commands if str(secret) in command]


def test_process_that_lacks_something_ends_with_one_sentence(fleet, redis_client, valkey_url, namespace):
    rules = [rule for rule in rules_of(StreamRole.WORKER, namespace) if rule not in {"+xclaim", "+xadd"}]
    with login(redis_client, valkey_url, namespace, rules) as url:
        fleet.environment["REDIS_URL"] = url
        processes = {"worker": fleet.start("run"), "publisher": fleet.start("publish-registry")}
        codes = [process.wait() for process in processes.values()]

    assert codes == [ExitCode.USAGE] * 2
    for role, process in processes.items():
        text = process.log.read_text(encoding="utf-8")
        (sentence,) = [line for line in text.splitlines() if line.startswith("signal-worker: ")]
        assert f"REDIS_URL: {role} needs the right to send its commands; this login may not " in sentence
        assert "XADD" in sentence
        assert PASSWORD not in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "it has maxmemory 104857600 with allkeys-lru"),
        (("--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"), "with volatile-ttl"),
        (("--cluster-enabled", "yes"), "no cluster and no sentinel; it runs as cluster"),
    ],
)
def test_server_that_loses_outcomes_is_refused(tmp_path, namespace, options, sentence):
    port = identity.free_port()
    server = subprocess.Popen(
        [valkey.binary(None), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with connect(f"redis://127.0.0.1:{port}/0", "t") as client:
            assert wait_until(lambda: answers(client), PATIENCE)
            for role in StreamRole:
                with pytest.raises(SettingsError, match=sentence):
                    require_stream_server(client, StreamNames(namespace), role)
    finally:
        server.kill()
        server.wait()


def answers(client):
    with contextlib.suppress(Exception):
        return client.ping()
    return False


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # noqa: TID251 - where Debian puts it


@contextlib.contextmanager
def stand_in(database_url, _folder, sessions):
    pooler = TransactionPooler(database_url, sessions=sessions)
    try:
        yield pooler.url
    finally:
        pooler.close()


@contextlib.contextmanager
def pgbouncer(database_url, folder, sessions):
    known = {name: value for name, value in conninfo_to_dict(database_url).items() if value is not None}
    port = identity.free_port()
    target = " ".join(
        f"{name}={known[name]}" for name in ("host", "port", "dbname", "user", "password") if name in known
    )
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {sessions}\nunix_socket_dir =\n",
        encoding="utf-8",
    )
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").chmod(0o644)
    words = [PGBOUNCER, *(["-u", "nobody"] if os.getuid() == 0 else []), str(folder / "pgbouncer.ini")]
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
    url = make_conninfo(host="127.0.0.1", port=port, dbname=known["dbname"], user=known["user"])
    try:
        assert wait_until(lambda: reachable(url), PATIENCE), (folder / "pgbouncer.log").read_text(encoding="utf-8")
        yield url
    finally:
        process.terminate()
        process.wait()


def reachable(url):
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2):
        return True
    return False


#: The program itself where a machine has it, and always one that does the same.
POOLERS = [stand_in, *([pgbouncer] if PGBOUNCER else [])]


@pytest.mark.parametrize("sessions", [1, 3])
@pytest.mark.parametrize("pooler", POOLERS, ids=lambda pooler: pooler.__name__)
def test_session_of_a_transaction_pool_is_noticed(database_url, tmp_path_factory, pooler, sessions):
    with pooler(database_url, tmp_path_factory.mktemp("pooler"), sessions) as url:
        with pytest.raises(SettingsError, match=r"db migrate needs a session of its own.*a pooler shares sessions out"):
            require_session(url, "db migrate")
        with pytest.raises(SettingsError, match="publisher needs a session of its own"):
            require_registry(url, RegistryRole.PUBLISHER)
        with pytest.raises(SettingsError, match="db migrate needs a session"):
            migrate(url)
        # A worker keeps nothing in its session.
        require_registry(url, RegistryRole.WORKER)

    require_session(database_url, "db migrate")


def test_slow_server_is_no_pooler(database_url, monkeypatch):
    """Its answer comes after the time for which the other's transaction is kept open, and from the same session."""
    asked = requirements._session

    def slow(connection):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.3)
        return asked(connection)

    monkeypatch.setattr(requirements, "_session", slow)
    monkeypatch.setattr(requirements, "_WAIT_SECONDS", 0.05)

    require_session(database_url, "db migrate")


def test_no_two_publishers_lead_behind_a_transaction_pool(fleet, database_url):
    with stand_in(database_url, None, 3) as url:
        fleet.environment["DATABASE_URL"] = url
        publishers = [fleet.start("publish-registry") for _ in range(2)]
        codes = [publisher.wait() for publisher in publishers]

    assert codes == [ExitCode.USAGE] * 2
    for publisher in publishers:
        assert "a pooler shares sessions out by transaction" in publisher.log.read_text(encoding="utf-8")
        assert publisher.events("publisher_role") == []


@pytest.mark.parametrize(
    ("role", "missing"),
    [
        (RegistryRole.WORKER, "lacks SELECT on public.model_registry, SELECT on public.model_activations"),
        (RegistryRole.PUBLISHER, "lacks SELECT on public.model_activations, SELECT on public.registry_outbox"),
    ],
)
def test_login_without_the_privileges_of_its_role_is_named(database_url, role, missing):
    with plain_login(database_url) as (name, url), pytest.raises(SettingsError) as refused:
        require_registry(url, role)

    assert str(refused.value).startswith(f"DATABASE_URL: {role} needs the privileges of ")
    assert f"{name} {missing}" in str(refused.value)


@pytest.mark.parametrize(("role", "group"), [("worker", "signal_reader"), ("publisher", "signal_publisher")])
def test_login_in_the_group_of_its_role_is_enough(database_url, role, group):
    with plain_login(database_url, group) as (_, url):
        findings = registry_findings(url, RegistryRole(role))

    assert [finding.met for finding in findings] == [True] * len(findings)


@contextlib.contextmanager
def plain_login(database_url, *groups):
    name = f"login_{secrets.token_hex(4)}"
    known = {key: value for key, value in conninfo_to_dict(database_url).items() if value is not None}
    with psycopg.connect(database_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), PASSWORD))
        for group in groups:
            server.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
        try:
            yield name, make_conninfo(**{**known, "user": name, "password": PASSWORD})
        finally:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("role", [*StreamRole])
def test_check_shows_what_a_role_needs_and_what_there_is(valkey_url, database_url, namespace, role):
    environment = {"REDIS_URL": valkey_url, "DATABASE_URL": database_url}

    shown = CliRunner(env=environment).invoke(app, ["check", role, "--namespace", namespace, "--json"])

    assert shown.exit_code == 0, shown.output
    rows = json.loads(shown.stdout)
    assert {row["met"] for row in rows} == {True}
    assert ("registry" in {row["server"] for row in rows}) == (role in {"worker", "publisher"})


@pytest.mark.parametrize("role", ["producer", "gateway"])
def test_check_of_a_role_without_the_registry_needs_no_registry(valkey_url, namespace, role, tmp_path):
    environment = {"REDIS_URL": valkey_url, "DATABASE_URL": "", "SIGNALS_LOCAL_DIR": str(tmp_path)}

    shown = CliRunner(env=environment).invoke(app, ["check", role, "--namespace", namespace])

    assert shown.exit_code == 0, shown.output


def test_check_ends_with_2_where_something_is_missing(redis_client, valkey_url, database_url, namespace):
    with login(redis_client, valkey_url, namespace, []) as url:
        environment = {"REDIS_URL": url, "DATABASE_URL": database_url}
        shown = CliRunner(env=environment).invoke(app, ["check", "gateway", "--namespace", namespace])
    unknown = CliRunner(env=environment).invoke(app, ["check", "nobody"])

    assert (shown.exit_code, unknown.exit_code) == (ExitCode.USAGE, ExitCode.USAGE)
    assert "no" in shown.stdout
    assert "there is no role 'nobody', only worker, publisher, producer, gateway" in unknown.stderr


def test_gateway_refuses_a_login_that_cannot_record_what_it_applied(redis_client, valkey_url, namespace):
    rules = [rule for rule in rules_of(StreamRole.GATEWAY, namespace) if rule != "+hset"]
    with (
        login(redis_client, valkey_url, namespace, rules) as url,
        SignalClient(url, namespace=namespace) as client,
        Gateway(client, "paper", lambda _: None) as gateway,
        pytest.raises(SettingsError, match=f"gateway needs .* may not HSET {namespace}:gateway:"),
    ):
        gateway.run()
