import re
import subprocess
import sys

import psutil
import pytest

from tests.support.servers import short_lived_directory
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
    assert (
        len(re.findall(r"^│ (AAPL|FB|GOOG|IBM|MSFT) .*[+-]0\.\d{6} .*[+-]0\.[05]000 │$", done.stdout, re.MULTILINE))
        == 5
    )
    assert "nothing is running" in done.stdout
    assert of_this_demo(folder) == []


def test_kept_demo_serves_until_it_is_stopped(folder):
    done = demo(folder, "--keep")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = re.findall(
            r"^(\S+signal-worker) request AAPL MSFT --as-of 2013-02-01 --wait$", done.stdout, re.MULTILINE
        )
        (redis_url,) = set(re.findall(r"redis-cli -u (\S+) XADD", done.stdout))
        (database_url,) = re.findall(r"psql (\S+) -c", done.stdout)
        asked = subprocess.run(
            [line, "request", "AAPL", "MSFT", "--as-of", "2013-02-01", "--wait"],
            env=inherited_environment() | {"REDIS_URL": redis_url, "DATABASE_URL": database_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "as of 2013-02-01" in asked.stdout, asked.stderr
    finally:
        stopped = demo(folder, "--stop")

    assert stopped.returncode == 0
    assert of_this_demo(folder) == []
