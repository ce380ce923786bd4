"""Connections to the stream server, and what its errors mean.

Owns: how each role of connection times out and retries, the translation of driver errors, the wait between tries.
Must not know: what is read or written.
Invariant: no command is ever retried by the driver. A retried XADD is a second entry; the caller alone knows whether
its command may be said twice (reads, and the commit script, which recognises its own success).
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeVar

import redis
import redis.asyncio
import structlog
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from worker.errors import GroupVanished, StreamUnavailable

Client = redis.Redis
Result = TypeVar("Result")

#: Time the server has for a command that does not block, in seconds.
COMMAND_SECONDS = 5.0
#: Time beyond its block that a blocking read waits for the server: longer than a busy server's own delay.
GRACE_SECONDS = 5.0
#: Seconds of silence until the kernel asks whether the peer is still there, seconds between asking, and how often.
KEEPALIVE_SECONDS, KEEPALIVE_PAUSE_SECONDS, KEEPALIVE_TRIES = 3, 1, 3
#: Seconds between two reminders that the server is still away.
REMIND_SECONDS = 60.0

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
_log = structlog.get_logger()


def connect(url: str, name: str, *, block_ms: int = 0) -> Client:
    """Return a client of its own connection, for one role of one thread.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        name: Shown by `CLIENT LIST`.
        block_ms: Longest block of its reads; the socket waits longer than that.
    """
    retry = Retry(NoBackoff(), 0)
    client: Client = redis.Redis.from_url(url, retry=retry, max_connections=2, **connection_options(name, block_ms))
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


def script(client: Client, name: str) -> Script:
    """Return a server-side script of `worker/lua`; it is loaded again by itself after SCRIPT FLUSH."""
    source = resources.files("worker").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return client.register_script(source)


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


class Outage:
    """One line when the server goes, one when it is back, between them one a reason and one a minute."""

    def __init__(self, what: str) -> None:
        """Start with the server taken to be there."""
        self._what = what
        self._since: float | None = None
        #: Reason to when it was last said in this outage: two that take turns are no news each time.
        self._said: dict[str, float] = {}
        self.count = 0
        #: Error class to how often the server went away with it.
        self.reasons: Counter[str] = Counter()

    @property
    def lasting(self) -> bool:
        """Whether the server is away now."""
        return self._since is not None

    def away(self, error: StreamUnavailable) -> None:
        """Note a failed try."""
        now = time.monotonic()
        if self._since is None:
            self._since, self.count = now, self.count + 1
            self.reasons[error.reason] += 1
            self._said.clear()
        elif error.reason in self._said and now - max(self._said.values()) < REMIND_SECONDS:
            return
        self._said[error.reason] = now
        _log.warning("server_away", what=self._what, reason=error.reason, detail=str(error))

    def back(self) -> None:
        """Note a try that worked."""
        if self._since is not None:
            _log.info("server_back", what=self._what, away_seconds=round(time.monotonic() - self._since, 3))
            self._since = None


class Patience:
    """Tries again until the server is back or the worker is told to stop, with capped and jittered pauses."""

    def __init__(self, stop: threading.Event, outage: Outage, max_seconds: float) -> None:
        """Take the event that ends every wait at once."""
        self._stop, self._outage, self._max_seconds = stop, outage, max_seconds

    def call(self, command: Callable[[], Result]) -> Result:
        """Return what the command returns, however long the server is away.

        The command must be one that may be said twice.

        Raises:
            StreamUnavailable: The server is away and the worker is told to stop.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(StreamUnavailable),
            wait=wait_random_exponential(multiplier=0.05, max=self._max_seconds),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._note,
            reraise=True,
        )
        result = retrying(command)
        self._outage.back()
        return result

    def _note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StreamUnavailable):
            self._outage.away(error)


def _reason(error: redis.RedisError) -> str:
    for driver, word in _WORDS.items():
        if isinstance(error, driver):
            return word
    first = str(error).split(" ", 1)[0].rstrip(":")
    return first if first.isupper() and first.isalpha() else type(error).__name__


def _raw(response: Any, **_options: Any) -> Any:  # noqa: ANN401 - the driver's own border
    return response
