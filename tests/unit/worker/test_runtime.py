import json
import logging
import subprocess
import sys
import warnings

import pytest
import structlog

from worker.runtime import configure_logs


@pytest.fixture(autouse=True)
def _logs_as_before():
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers
    logging.captureWarnings(False)


def test_log_is_one_json_line_an_event_off_a_terminal(capsys):
    configure_logs("INFO", "auto")
    log = structlog.get_logger()

    log.debug("too_quiet")
    log.info("request_answered", symbols=3)

    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["symbols"], said["level"]) == ("request_answered", 3, "info")


def test_json_line_begins_with_time_level_and_event(capsys):
    configure_logs("INFO", "json")

    structlog.get_logger().bind(worker="w1").info("request_answered", symbols=3)
    logging.getLogger("some.library").warning("disk %s is nearly full", "/data")

    for line in capsys.readouterr().err.splitlines():
        assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]


def test_warnings_of_libraries_are_lines_of_the_same_form(capsys):
    configure_logs("INFO", "json")

    logging.getLogger("some.library").info("too quiet")
    logging.getLogger("some.library").warning("disk %s is nearly full", "/data")
    warnings.showwarning("old call", DeprecationWarning, "library.py", 7)

    logged, warned = map(json.loads, capsys.readouterr().err.splitlines())
    assert (logged["event"], logged["level"], logged["logger"]) == (
        "disk /data is nearly full",
        "warning",
        "some.library",
    )
    assert "old call" in warned["event"]


def test_logs_configured_twice_write_each_line_once(capsys):
    configure_logs("INFO", "json")
    configure_logs("INFO", "json")

    logging.getLogger("some.library").error("once")

    assert len(capsys.readouterr().err.splitlines()) == 1


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


def test_log_of_a_verb_goes_to_stderr():
    program = (
        "import structlog, typer; from worker.cli import main;"
        "main.app.command('speak')(lambda: (structlog.get_logger().warning('aside'), typer.echo('answer')));"
        "main.main()"
    )

    done = subprocess.run([sys.executable, "-c", program, "speak"], capture_output=True, text=True, check=True)

    assert done.stdout == "answer\n"
    assert json.loads(done.stderr)["event"] == "aside"
