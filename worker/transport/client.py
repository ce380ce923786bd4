"""Connections to the stream server, and what its errors mean.

Owns: how each role of connection times out and retries, the translation of driver errors.
Must not know: what is read or written.
Invariant: no command is ever retried by the driver. A retried XADD is a second entry; the caller alone knows whether
its command may be said twice (reads, and the commit script, which recognises its own success).
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import GroupVanished, StreamUnavailable
from worker.server_urls import stream_url

Client = redis.Redis

#: Time the server has for a command that does not block, in seconds.
COMMAND_SECONDS = 5.0
#: Time beyond its block that a blocking read waits for the server: longer than a busy server's own delay.
GRACE_SECONDS = 5.0
#: Seconds of silence until the kernel asks whether the peer is still there, seconds between asking, and how often.
KEEPALIVE_SECONDS, KEEPALIVE_PAUSE_SECONDS, KEEPALIVE_TRIES = 3, 1, 3

#: The server's own word for errors that the driver turns into classes without it.
_WORDS: Mapping[type[redis.RedisError], str] = {
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.AuthenticationError: "NOAUTH",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.TryAgainError: "TRYAGAIN",
}
#: Answers of a server that has another for what was asked: after a failover the name may lead there, an open connection
#: never does.
_ELSEWHERE = (redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError, redis.exceptions.AskError)
_RAW = ("XREADGROUP", "XREAD", "XCLAIM", "XAUTOCLAIM", "XRANGE", "XREVRANGE")


def connect(url: str, name: str, *, block_ms: int = 0) -> Client:
    """Return a client of its own connection, for one role of one thread.

    Args:
        url: As `worker.server_urls` reads it.
        name: Shown by `CLIENT LIST`.
        block_ms: Longest block of its reads; the socket waits longer than that.

    Raises:
        SettingsError: The URL cannot be read.
    """
    retry = Retry(NoBackoff(), 0)
    client: Client = redis.Redis.from_url(
        stream_url(url), retry=retry, max_connections=2, **connection_options(name, block_ms)
    )
    keep_raw(client)
    return client


def connection_options(name: str, block_ms: int) -> dict[str, Any]:
    """Return what every connection of ours has in common, for threads and event loops alike."""
    return {
        "protocol": 2,
        "client_name": name,
        "socket_timeout": block_ms / 1000 + (GRACE_SECONDS if block_ms else COMMAND_SECONDS),
        "socket_connect_timeout": COMMAND_SECONDS,
        "socket_keepalive": True,
        "socket_keepalive_options": _keepalive(),
        # With no retries this only closes the connection.
        "retry_on_error": [*_ELSEWHERE],
    }


def _keepalive() -> dict[int, int]:
    """Return the kernel's options, where it has them."""
    named = {
        "TCP_KEEPIDLE": KEEPALIVE_SECONDS,
        "TCP_KEEPINTVL": KEEPALIVE_PAUSE_SECONDS,
        "TCP_KEEPCNT": KEEPALIVE_TRIES,
    }
    return {getattr(socket, name): value for name, value in named.items() if hasattr(socket, name)}


def keep_raw(client: Client | redis.asyncio.Redis) -> None:
    """Have entries come as the server sends them: a dict would hide the order of fields and doubled names."""
    for command in _RAW:
        client.set_response_callback(command, _raw)


def say(client: Client, *command: str | int | bytes) -> Any:  # noqa: ANN401 - replies have every shape
    """Return the server's reply to a command as it came, fields of entries in their order."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]  # the driver's own border


def pairs_of(flat: Sequence[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of an entry, doubled names included."""
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def text_of(raw: bytes | str | int) -> str:
    """Return a name, an id or a cursor of the server as text, whichever way the driver gave it."""
    return raw.decode() if isinstance(raw, bytes) else str(raw)


@contextmanager
def translated() -> Iterator[None]:
    """Turn driver errors into ours.

    Raises:
        GroupVanished: The consumer group is gone.
        StreamUnavailable: Anything else that keeps the server from doing what was asked.
    """
    try:
        yield
    except redis.RedisError as error:
        reason, detail = _reason(error), str(error)
        if reason == "NOGROUP":
            raise GroupVanished(reason, detail) from error
        raise StreamUnavailable(reason, detail) from error
    except OSError as error:
        raise StreamUnavailable(type(error).__name__, str(error)) from error


def _reason(error: redis.RedisError) -> str:
    for driver, word in _WORDS.items():
        if isinstance(error, driver):
            return word
    first = str(error).split(" ", 1)[0].rstrip(":")
    return first if first.isupper() and first.isalpha() else type(error).__name__


def _raw(response: Any, **_options: Any) -> Any:  # noqa: ANN401 - the driver's own border
    return response
