"""The check that every test passes at its end sees what a test leaves."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.fork_server import fork_server
from tests.support.leaks import Belongings, lasting_keys, left_since
from worker.settings import inherited_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and connections are found in /proc alone")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr("tests.support.leaks._SETTLING_SECONDS", 0.1)


def test_process_that_nobody_ended_is_found():
    before = Belongings.now()

    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        (left,) = left_since(before)

    assert left.startswith(f"process {child.pid}: ")
    assert left_since(before) == []


def test_forked_process_that_nobody_ended_is_found(tmp_path):
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(600)", encoding="utf-8")
    server = fork_server(measured=False)
    before = Belongings.now()

    child = server.start("sleeper", [], inherited_environment(), tmp_path / "log")
    left = left_since(before)
    child.kill()
    child.wait(30)

    assert any(line.startswith(f"process {child.pid}: ") for line in left)
    assert left_since(before) == []


def test_open_connection_and_temporary_file_are_found():
    before = Belongings.now()

    with socket.create_server(("127.0.0.1", 0)), tempfile.NamedTemporaryFile() as file:
        left = left_since(before)

    assert [line.partition(" ")[0] for line in left] == ["connection", "file"]
    assert left[1] == f"file {Path(file.name)}"
    assert left_since(before) == []


def test_key_without_an_expiry_is_found_and_removed(redis_client, namespace):
    redis_client.xadd(f"{namespace}:requests", {"a": "b"})
    redis_client.set(f"{namespace}:request:1", "x", ex=60)
    redis_client.hset(f"{namespace}:request:2", "state", "done")
    redis_client.set(f"{namespace}:gateway:desk:book:alpha", "x")

    assert lasting_keys(redis_client, namespace) == [f"key {namespace}:request:2 without an expiry"]
    assert redis_client.keys(f"{namespace}:*") == []
