import re
import subprocess
import sys

import psutil
import pytest
from typer.testing import CliRunner

from tests.support.pages import Shell
from tests.support.servers import short_lived_directory
from worker.cli._common import ExitCode
from worker.cli.main import app
from worker.settings import inherited_environment

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


@pytest.fixture
def folder():
    with short_lived_directory() as made:
        yield made


def demo(folder, *words):
    environment = {name: value for name, value in inherited_environment().items() if not name.endswith("_URL")}
    environment |= {"SIGNALS_LOCAL_DIR": str(folder / "local"), "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "worker", "demo", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


NOWHERE = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}


def of_this_demo(folder):
    """Return the command lines of living processes that know the demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(folder) in words or str(folder) in str(process.info["cwd"]):
            found.append(words)
    return found


def test_demo_runs_the_whole_job_and_leaves_nothing_running(folder):
    done = demo(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"alpha_baseline v1, as of 2013-03-01", done.stdout)
    rows = re.findall(r"^(AAPL|FB|GOOG|IBM|MSFT) +[+-]0\.\d{6} +\d +[+-]0\.[05]000$", done.stdout, re.MULTILINE)
    assert len(rows) == 5
    assert "(probe)" in done.stdout
    assert "vectors taken: 1 applied" in done.stdout
    assert re.search(r"^alpha_baseline +GOOG +\+\d+ +\d+\.\d\d +2013-03-01 +\d+$", done.stdout, re.MULTILINE)
    assert "nothing is running" in done.stdout
    assert of_this_demo(folder) == []


@pytest.mark.parametrize(
    ("given", "words", "sentence"),
    [
        (("REDIS_URL",), (), "REDIS_URL is set, and the demo would activate its toy model"),
        (("REDIS_URL", "DATABASE_URL"), ("--keep",), "REDIS_URL and DATABASE_URL are set"),
        (("DATABASE_URL",), ("--on-given-servers",), "needs REDIS_URL and DATABASE_URL"),
    ],
)
def test_demo_keeps_off_servers_that_are_given(monkeypatch, tmp_path, given, words, sentence):
    monkeypatch.setenv("SIGNALS_LOCAL_DIR", str(tmp_path / "local"))
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.setenv(name, NOWHERE[name] if name in given else "")

    refused = CliRunner().invoke(app, ["demo", *words])

    assert refused.exit_code == ExitCode.USAGE
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "local").exists()


def test_kept_demo_serves_until_the_line_that_stops_it_and_every_line_can_be_pasted(folder):
    shell = Shell(folder)
    try:
        printed = re.sub(r"\x1b\[[0-9;]*m", "", shell.run("make demo KEEP=1", "the demo"))
        lines = dict(re.findall(r"^(# .*)\n(.*)$", printed.partition("Lines to play with:")[2], re.MULTILINE))
        stop = lines.pop("# end it all")
        pasted = {what: shell.run(line, what) for what, line in lines.items()}
        alive = of_this_demo(folder)
        shell.run(stop, "the end of the demo")
        left = of_this_demo(folder)
    finally:
        shell.close()

    assert len(pasted) == 13
    assert "alive" in pasted["# is it alive?"]
    assert "signal_worker_" in pasted["# what does it measure?"]
    assert "serving" in pasted["# who serves what?"]
    assert "alpha_baseline" in pasted["# read a worker's heartbeat"]
    assert "as of 2013-02-01" in pasted["# ask and wait"]
    for verb in ("publish-registry", "run"):
        assert any(f"worker {verb}" in words for words in alive), alive
    assert [words for words in left if not words.startswith("bash ")] == []
