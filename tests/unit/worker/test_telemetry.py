import json

import pytest
import structlog

from contracts import RejectionCode
from tests.support.wire import make_rejection, make_vector
from worker.serving.results import CommitStatus
from worker.telemetry import Counters, configure_logs


@pytest.fixture(autouse=True)
def _logs_as_before():
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_log_is_one_json_line_an_event_off_a_terminal(capsys):
    configure_logs("INFO", "auto")
    log = structlog.get_logger()

    log.debug("too_quiet")
    log.info("request_answered", symbols=3)

    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["symbols"], said["level"]) == ("request_answered", 3, "info")


def test_log_is_readable_on_a_console(capsys):
    configure_logs("INFO", "console")

    structlog.get_logger().info("request_answered", symbols=3)

    assert "request_answered" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["console", "json"])
def test_traceback_shows_no_local_variable(capsys, form):
    configure_logs("INFO", form)

    def fail(url):
        raise RuntimeError(f"cannot reach {len(url)}")

    try:
        fail("redis://user:" + "hunter2" + "@host")
    except RuntimeError:
        structlog.get_logger().exception("died")

    said = capsys.readouterr().err
    assert "RuntimeError: cannot reach 25" in said
    assert "hunter2@" not in said


def test_counters_tell_outcomes_apart():
    counters = Counters()

    counters.count(make_vector(), CommitStatus.COMMITTED, 1.0)
    counters.count(make_rejection(code=RejectionCode.STALE_SYMBOL), CommitStatus.COMMITTED, 1.0)
    counters.count(make_vector(), CommitStatus.DUPLICATE, 1.0)

    assert (counters.answered, counters.rejected, counters.dropped) == (1, 1, 1)
    assert counters.codes == {"stale_symbol": 1}


def test_latency_needs_two_answers_and_keeps_the_last_thousand():
    counters = Counters()
    counters.count(make_vector(), CommitStatus.COMMITTED, 500.0)
    assert counters.latency_ms() is None

    for _ in range(1000):
        counters.count(make_vector(), CommitStatus.COMMITTED, 2.0)

    assert counters.latency_ms() == (2.0, 2.0)
