import http.client
import json
import socket

import pytest
from prometheus_client import CollectorRegistry

from tests.support.probes import ask
from worker.errors import SettingsError
from worker.fleet.health import Liveness, Reason
from worker.fleet.health_port import HealthPort, pages


class Verdict:
    """Stands for readiness: says what the test put there."""

    def __init__(self) -> None:
        self.said: tuple[Reason, ...] = ()

    def reasons(self) -> tuple[Reason, ...]:
        return self.said


@pytest.fixture
def verdict():
    return Verdict()


@pytest.fixture
def port(verdict):
    answers = pages(Liveness({}, {}), verdict, CollectorRegistry())

    def broken() -> None:
        raise RuntimeError("odd")

    opened = HealthPort("127.0.0.1", 0, {**answers, "/broken": broken})
    yield opened
    opened.close()


def test_probe_that_finds_nothing_wrong_reports_it(port):
    assert ask(port.port, "/livez") == (200, '{"status": "alive"}\n')
    assert ask(port.port, "/readyz?verbose") == (200, '{"status": "ready"}\n')


def test_reasons_come_one_json_line_each(port, verdict):
    verdict.said = (Reason("paused", "by an operator"), Reason("no_model", "none is active"))

    status, body = ask(port.port, "/readyz")

    assert status == 503
    assert [json.loads(line) for line in body.splitlines()] == [
        {"reason": "paused", "detail": "by an operator"},
        {"reason": "no_model", "detail": "none is active"},
    ]


def test_remark_is_a_line_of_its_own_and_changes_no_status(verdict):
    remarks = (Reason("snapshot_refused", "half the universe is missing"),)
    status, _, body = pages(Liveness(dict, dict), verdict, CollectorRegistry(), lambda: remarks)["/readyz"]()

    assert status == 200
    assert [json.loads(line) for line in body.splitlines()] == [
        {"status": "ready"},
        {"remark": "snapshot_refused", "detail": "half the universe is missing"},
    ]


def test_unknown_path_names_the_known_ones(port):
    assert ask(port.port, "/") == (404, "/livez, /readyz, /metrics\n")


def test_head_answers_without_a_body(port):
    assert ask(port.port, "/livez", "HEAD") == (200, "")


def test_client_that_is_silent_delays_no_probe(port):
    with socket.create_connection(("127.0.0.1", port.port)):
        assert ask(port.port, "/livez")[0] == 200


def test_page_that_fails_costs_only_its_request(port):
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(port.port, "/broken")

    assert ask(port.port, "/livez")[0] == 200


def test_port_that_is_taken_is_a_setting_to_mend(port):
    with pytest.raises(SettingsError, match=f"health_port {port.port}: Address already in use"):
        HealthPort("127.0.0.1", port.port, {})
