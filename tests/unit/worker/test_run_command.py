import sys

import pytest
from typer.testing import CliRunner

from worker import app
from worker.cli.main import app as command_line
from worker.cli.run import SWITCH_SECONDS


@pytest.fixture(autouse=True)
def _as_before():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_worker_runs_with_threads_that_take_short_turns(monkeypatch):
    turns = []

    class Watched:
        def __init__(self, *_, **__):
            pass

        def run(self):
            turns.append(sys.getswitchinterval())
            return 0

    monkeypatch.setattr(app, "Worker", Watched)
    # What they do to this process, later tests would find.
    monkeypatch.setattr("worker.runtime.configure_logs", lambda *_: None)
    monkeypatch.setattr("worker.cli.run._import_lightgbm", lambda: None)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")

    result = CliRunner().invoke(command_line, ["run"])

    assert result.exit_code == 0, result.output
    assert turns == [pytest.approx(SWITCH_SECONDS)]
