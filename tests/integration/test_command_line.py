"""Every verb that prints facts, on real servers with long names: at 80 columns, in a pipe, and as JSON."""

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from tests.support.command_lines import WITHOUT_JSON, verbs
from tests.support.fleet import PATIENCE, Fleet
from tests.support.serving import Streams
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.registry import Registry

#: As long as versions, workers and request ids are in earnest.
LONG_VERSION = "2026-11-27T18-00-00Z-candidate-with-a-long-name"
LONG_WORKER = "signals-worker-7f9c6d5b8-x2x9q.eu-central-1.compute-12345-0a1b2c"
LONG_ID = "rebalance-2026-11-27-desk-europe-0f8fad5b-d9cb-469f-a165-70867728950e"
MARKS = {"…": "a cell was cut", "│": "a box in a pipe"}

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"), ("v1", LONG_VERSION))


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("work") / "here")


@pytest.fixture(scope="module")
def endpoints_of_fleet(endpoints, _databases):
    """A database with two registered versions, one active, and one in testing."""
    with _databases.migrated() as database_url:
        with Registry(database_url) as registry:
            for version in ("v1", LONG_VERSION):
                register(registry, version)
            registry.activate(STRATEGY, "v1", "ada", "the first one, with a reason of many words that no column bears")
        yield Endpoints(redis_url=endpoints.redis_url, database_url=database_url)


@pytest.fixture(scope="module")
def world(endpoints_of_fleet, folder):
    """A worker that answered one request and rejected another."""
    namespace = f"walk-{os.getpid()}"
    streams = Streams(endpoints_of_fleet.redis_url, namespace)
    fleet = Fleet(endpoints_of_fleet, folder, namespace=namespace, shadow_share=1, worker_name=LONG_WORKER)
    fleet.worker()
    assert wait_until(lambda: b'"since"' in _heartbeat(streams).get(b"candidates", b""), PATIENCE)
    streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS), "request_id": LONG_ID, "explain": "true"})
    streams.add({"strategy": STRATEGY, "symbols": "ZZZZ", "request_id": f"{LONG_ID}-rejected"})
    assert wait_until(lambda: len(streams.results()) == len(streams.rejections()) == 1, PATIENCE)
    yield fleet
    fleet.end()


def _heartbeat(streams):
    return streams.client.hgetall(streams.names.worker(LONG_WORKER))


@pytest.fixture
def call(world, tmp_path):
    """Call `signal-worker` in a pipe, or on a terminal of 80 columns."""
    environment = {name: text for name, text in world.environment.items() if name.startswith(("SIGNALS_", "REDIS_"))}
    environment |= {"DATABASE_URL": world.environment["DATABASE_URL"], "SIGNALS_LOCAL_DIR": str(tmp_path / "local")}
    environment |= {"COLUMNS": "80", "NO_COLOR": "", "SIGNALS_NAMESPACE": world.environment["SIGNALS_NAMESPACE"]}
    terminal = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}

    def called(*words, on_terminal=False):
        return CliRunner().invoke(app, words, env=environment | (terminal if on_terminal else {}))

    return called


def words_of():
    """Return each verb that shows rows or facts, as an operator types it here, and the exit code that it has here."""
    evidence = (STRATEGY, "v1", LONG_VERSION)
    gate = ("--min-rank-ic", "-1", "--min-agreement", "0", "--sessions", "1", "--dry-run", "--recompute")
    return {
        "request": (("--wait", "--explain", "--timeout", "60", ",".join(SYMBOLS)), 0),
        "publish-registry": (("--check",), 1),
        "settings": ((), 0),
        "check": (("worker",), 0),
        "replay": ((LONG_ID,), 0),
        "archive": ((), 0),
        "control ping": (("--wait", "--timeout", "60"), 0),
        "control reload": (("--wait", "--timeout", "60"), 0),
        "control refresh-data": (("--wait", "--timeout", "60"), 0),
        "control pause": (("--worker", "nobody", "--reason", "a look"), 0),
        "control resume": (("--wait", "--timeout", "60"), 0),
        "data list": ((), 0),
        "data check": ((), 0),
        "data rules": ((), 0),
        "features hash": (("alpha158",), 0),
        "features compute": (("alpha158", *SYMBOLS), 0),
        "models status": ((), 0),
        "models compare": ((*evidence, "--recompute", "--sessions", "5"), 0),
        "models promote": ((STRATEGY, LONG_VERSION, *gate), 0),
        "models drift": ((STRATEGY, "v1"), 0),
        "models list": ((), 0),
        "models show": ((STRATEGY, LONG_VERSION), 0),
        "models history": ((), 0),
        "db migrate": ((), 0),
        "db status": ((), 0),
        "local status": ((), 1),
        "local down": ((), 0),
        "rejections list": ((), 0),
        "rejections show": ((f"{LONG_ID}-rejected",), 0),
        "rejections redrive": ((f"{LONG_ID}-rejected", f"{LONG_ID}-rejected", "--limit", "1000"), 0),
        "rejections purge": ((), 0),
        "requests pending": ((), 0),
        "requests show": ((LONG_ID,), 0),
    }


#: Verbs that change what others show, or need what is not here; their output is a sentence and tested beside them.
ELSEWHERE = {
    "train", "report", "data import", "data append", "data correct", "data diff",
    "models register", "models fetch", "models package", "gateway", "models activate", "models rollback",
    "models deactivate", "models fail", "models retry", "models canary", "local up", "local env", "control drain",
}  # fmt: skip


def test_every_verb_is_walked_here_or_argued():
    assert set(words_of()) | ELSEWHERE | WITHOUT_JSON == {verb.name for verb in verbs()}


@pytest.mark.parametrize("name", words_of())
def test_verb_is_readable_on_80_columns(call, name):
    words, code = words_of()[name]

    shown = call(*name.split(), *words, on_terminal=True)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.stdout)
    assert shown.exit_code == code, shown.output
    assert "…" not in _without_masks(text)
    assert not [line for line in _tables_of(text) if len(line) > 80]


@pytest.mark.parametrize("name", words_of())
def test_verb_in_a_pipe_prints_whole_rows(call, name):
    words, code = words_of()[name]

    shown = call(*name.split(), *words)

    assert shown.exit_code == code, shown.output
    assert not [mark for mark in MARKS if mark in _without_masks(shown.stdout)]
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize("name", words_of())
def test_json_of_a_verb_is_one_document_with_the_stated_fields(call, name):
    words, code = words_of()[name]

    shown = call(*name.split(), *words, "--json")

    assert shown.exit_code == code, shown.output
    document = json.loads(shown.stdout)
    (stated,) = [verb.json for verb in verbs() if verb.name == name]
    rows = document if isinstance(document, list) else [document]
    for row in rows:
        assert _stated_fields(stated) <= set(row), stated
        if "what else" not in stated and "each feature" not in stated and "as in the contracts" not in stated:
            assert set(row) == _stated_fields(stated)


def _without_masks(text):
    """Return the text without the masks of passwords, which tables may break."""
    return re.sub(r":\s*…@", "", text)


def _tables_of(text):
    """Return the lines of tables: sentences are wrapped by the terminal, cells are not."""
    return [line for line in text.splitlines() if re.search(r"\S {2,}\S", line)]


def _stated_fields(stated):
    """Return the fields of the form that the call here prints."""
    form = stated.removesuffix(".").split("; ")[0].removeprefix("a list of: ").removeprefix("with --check: ")
    if "as in the contracts" in form:
        return {"request_id", "strategy", "weights", "explanations"}
    listed = re.sub(r", and (what else|each) .*", "", form)
    return {re.sub(r" \(.*", "", name) for name in listed.split(", ")}


def test_names_are_whole_on_a_real_terminal(world, tmp_path):
    """On a pseudo-terminal of 80 columns, as the process itself sees it."""
    environment = world.environment | {"TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = shlex.join([sys.executable, "-m", "worker", "models", "status"])
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as reader:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"stty cols 80 rows 24; exec {command}"],
            stdin=follower, stdout=follower, stderr=follower, env=environment, cwd=tmp_path, close_fds=True,
        )  # fmt: skip
        os.close(follower)
        printed = b""
        try:
            while chunk := reader.read(4096):
                printed += chunk
        except OSError:  # Linux ends a pseudo-terminal with EIO
            pass
        assert process.wait(timeout=60) == 0, printed
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert LONG_WORKER in text
    assert LONG_VERSION in text
    assert max(map(len, text.splitlines())) <= 80


def test_worker_without_heartbeats_is_silent_and_then_gone(endpoints_of_fleet, folder, namespace):
    fleet = Fleet(endpoints_of_fleet, folder, namespace=namespace, worker_name="w1", heartbeat_seconds=1)
    worker = fleet.worker()

    def states():
        shown = CliRunner().invoke(app, ["models", "status", "--json"], env=fleet.environment)
        return [(row["worker"], row["state"], row["equal"]) for row in json.loads(shown.stdout)], shown

    try:
        assert wait_until(lambda: states()[0] == [("w1", "serving", True)], PATIENCE)
        worker.signal(signal.SIGKILL)
        assert wait_until(lambda: states()[0] == [("w1", "silent", None)], PATIENCE)
        silent = states()[1]
        assert wait_until(lambda: [row[:2] for row in states()[0]] == [("w1", "gone")], PATIENCE)
        gone = states()[1]
    finally:
        fleet.end()

    assert (silent.exit_code, gone.exit_code) == (ExitCode.FAILED, ExitCode.FAILED)
    assert json.loads(gone.stdout)[0]["beat_age_ms"] > 3000
    assert "no worker lives" in gone.stderr


def test_stated_times_of_json_are_utc(call):
    rows = json.loads(call("models", "list", "--json").stdout)

    assert all(datetime.fromisoformat(row["created_at"]).tzinfo == UTC for row in rows)
