"""The HTTP port of one worker: `/livez`, `/readyz`, `/metrics`.

Owns: the listening socket and what each path answers.
Must not know: Redis, PostgreSQL; an answer is made of what this process knows.
Invariant: a probe costs no call to any server, and a client that hangs delays no other probe.
"""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from worker.errors import SettingsError
from worker.fleet.health import Liveness, Readiness, Reason

#: Time a client has to send its request, in seconds.
CLIENT_SECONDS = 5.0

#: Status, content type and body.
Page = tuple[HTTPStatus, str, bytes]
_log = structlog.get_logger()


def pages(
    liveness: Liveness,
    readiness: Readiness,
    registry: CollectorRegistry,
    remarks: Callable[[], tuple[Reason, ...]] = tuple,
) -> Mapping[str, Callable[[], Page]]:
    """Return path to what it answers; `remarks` are printed by `/readyz` and change no status."""
    return {
        "/livez": lambda: _verdict("alive", liveness.reasons()),
        "/readyz": lambda: _verdict("ready", readiness.reasons(), remarks()),
        "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)),
    }


class HealthPort:
    """Answers probes on threads of its own until closed."""

    def __init__(self, host: str, port: int, answers: Mapping[str, Callable[[], Page]]) -> None:
        """Listen.

        Raises:
            SettingsError: The address cannot be listened on.
        """
        try:
            self._server = _Server((host, port), answers)
        except OSError as error:
            raise SettingsError(f"health_host {host}, health_port {port}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="health-port", daemon=True)
        self._thread.start()
        _log.info("health_port_open", host=host, port=self.port)

    @property
    def port(self) -> int:
        """Port that was taken."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a silent client must not delay the worker's shutdown

    def __init__(self, address: tuple[str, int], answers: Mapping[str, Callable[[], Page]]) -> None:
        self.answers = answers
        super().__init__(address, _Handler)

    def handle_error(self, _request: object, client_address: object) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a prober that closed its connection is no news
            _log.error("health_port_failed", client=str(client_address), exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path.split("?", 1)[0], _not_found)
        status, content_type, body = answer()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the standard library's name

    def version_string(self) -> str:
        return "signal-worker"

    def log_message(self, *_arguments: object) -> None:
        """Log no probe."""


def _verdict(good: str, reasons: tuple[Reason, ...], remarks: tuple[Reason, ...] = ()) -> Page:
    """Return a line of JSON a reason, or one that all is well, and a line a remark."""
    lines = [{"reason": reason.code, "detail": reason.sentence} for reason in reasons] or [{"status": good}]
    lines += [{"remark": remark.code, "detail": remark.sentence} for remark in remarks]
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return status, "application/jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode()


def _not_found() -> Page:
    return HTTPStatus.NOT_FOUND, "text/plain", b"/livez, /readyz, /metrics\n"
