"""What the verbs about streams share: the connection, and spans of time.

Owns: the connection of one verb, how spans of time are read and written.
Must not know: what is asked of the streams.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.cli._common import redis_url_of, refuse, settings_of

if TYPE_CHECKING:
    from contracts import StreamNames
    from worker.settings import Settings
    from worker.transport.client import Client

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@contextmanager
def stream_server(namespace: str | None) -> "Iterator[tuple[Client, StreamNames, Settings]]":
    """Yield a connection for one verb.

    Raises:
        StreamUnavailable: The server cannot be reached.
    """
    from contracts import StreamNames
    from worker.transport.client import connect

    settings = settings_of(namespace=namespace)
    client = connect(redis_url_of(settings), "signal-worker-operator")
    try:
        yield client, StreamNames(settings.namespace, settings.partition), settings
    finally:
        client.close()


def span_ms(text: str | None, option: str) -> int | None:
    """Return the milliseconds of `90s`, `15m`, `2h` or `3d`, or end with a sentence; None where nothing was typed."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        refuse(f"{option} was {text!r}, must be a number with s, m, h or d, e.g. 90s or 2h")
    return int(float(found[1]) * _UNITS_MS[found[2]])


def span_text(ms: float) -> str:
    """Return a span in the largest unit of which it is at least one."""
    for unit in ("d", "h", "m"):
        if ms >= _UNITS_MS[unit]:
            return f"{ms / _UNITS_MS[unit]:.1f}{unit}"
    return f"{ms / 1000:.1f}s"
