"""Probes of a worker's health port, as an orchestrator sends them."""

import http.client


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()
