"""Connections to the stream server, and what its errors mean.

Owns: how each role of connection times out and retries, the translation of driver errors, running a script.
Must not know: what is read or written.
Invariant: the driver never retries a command. A retried XADD is a second entry; only the caller knows whether its
command is idempotent (reads, and the commit script, which recognises its own success).
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import GroupVanished, StreamUnavailable
from worker.server_urls import stream_url
from worker.transport.script import Reply, Script

#: Time the server has for a command that does not block, in seconds.
COMMAND_SECONDS = 5.0
#: Time beyond its block that a blocking read waits for the server: longer than a busy server's own delay.
GRACE_SECONDS = 5.0
#: Seconds of silence until the kernel asks whether the peer is still there, seconds between asking, and how often.
KEEPALIVE_SECONDS, KEEPALIVE_PAUSE_SECONDS, KEEPALIVE_TRIES = 3, 1, 3

#: The server's code of errors that the driver turns into classes without it.
_CODES: Mapping[type[redis.RedisError], str] = {
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
#: Replies of a server that another has replaced: after a failover the name may lead there, an open connection never
#: does.
_ELSEWHERE = (redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError, redis.exceptions.AskError)
_RAW = ("XREADGROUP", "XREAD", "XCLAIM", "XAUTOCLAIM", "XRANGE", "XREVRANGE")


class Client(redis.Redis):
    """A connection for one role of one thread; not safe to share between threads.

    Every command raises `GroupVanished` where the consumer group is gone, and `StreamUnavailable` where anything else
    keeps the server from doing what was asked.
    """

    def execute_command(self, *command: Any, **options: Any) -> Any:  # noqa: ANN401 - replies have every shape
        """Return the server's reply to a command."""
        with _translated():
            return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]  # the driver's own border

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "CommandPipeline":  # noqa: ANN401, FBT001, FBT002 - the driver's signature
        """Return several commands to be sent in one round trip."""
        return CommandPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def run(self, script: Script[Reply]) -> Reply:
        """Run a script on the server, which has forgotten it after a restart or a SCRIPT FLUSH."""
        keys, arguments = script.keys(), script.arguments()
        try:
            raw = self.execute_command("EVALSHA", script.sha1(), len(keys), *keys, *arguments)
        except StreamUnavailable as error:
            if error.reason != "NOSCRIPT":
                raise
            raw = self.execute_command("EVAL", script.source(), len(keys), *keys, *arguments)
        return script.reply(raw)

    def may_send(self, commands: Sequence[Sequence[str]]) -> list[bool]:
        """Return of each command whether this login may send it; none is executed.

        The server decides that when it queues a command of a transaction, which is discarded here.

        Raises:
            StreamUnavailable: The server does not answer, or this login may send no transactions (`NOPERM`).
        """
        with _translated():
            connection = self.connection_pool.get_connection()
            try:
                _reply(connection, ("MULTI",))
                refusals = [_refusal(connection, command) for command in commands]
                _reply(connection, ("DISCARD",))
            finally:
                # What is left of a transaction ends with its connection.
                connection.disconnect()  # type: ignore[no-untyped-call]  # as above
                self.connection_pool.release(connection)
        return [not isinstance(refusal, redis.exceptions.NoPermissionError) for refusal in refusals]

    def server_time(self) -> datetime:
        """Return the instant by the server's clock, by which deadlines and leases are kept."""
        seconds, microseconds = self.execute_command("TIME")
        return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))


def _reply(connection: Any, command: Sequence[str]) -> Any:  # noqa: ANN401 - the driver's connections have no types
    connection.send_command(*command)
    return connection.read_response()


def _refusal(connection: Any, command: Sequence[str]) -> redis.ResponseError | None:  # noqa: ANN401 - as above
    try:
        _reply(connection, command)
    except redis.ResponseError as error:
        return error
    return None


class CommandPipeline(redis.client.Pipeline):
    """Several commands of one `Client`; it raises as that does."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the driver's signature
        """Return the reply to each command."""
        with _translated():
            return super().execute(raise_on_error)


class AsyncClient(redis.asyncio.Redis):
    """The twin of `Client` for one role of one task of an event loop."""

    async def execute_command(self, *command: Any, **options: Any) -> Any:  # noqa: ANN401 - replies have every shape
        """Return the server's reply to a command."""
        with _translated():
            return await super().execute_command(*command, **options)  # type: ignore[no-untyped-call]  # as above

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "AsyncCommandPipeline":  # noqa: ANN401, FBT001, FBT002 - the driver's signature
        """Return several commands to be sent in one round trip."""
        return AsyncCommandPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class AsyncCommandPipeline(redis.asyncio.client.Pipeline):
    """Several commands of one `AsyncClient`; it raises as that does."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the driver's signature
        """Return the reply to each command."""
        with _translated():
            return await super().execute(raise_on_error)


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
    client = cast(
        "Client",
        Client.from_url(stream_url(url), retry=retry, max_connections=2, **_connection_options(name, block_ms)),
    )
    _keep_raw(client)
    return client


def connect_async(url: str, name: str, *, block_ms: int = 0) -> AsyncClient:
    """Return a client of its own connection, for one role of one task; see `connect`."""
    retry = AsyncRetry(NoBackoff(), 0)
    client = cast(
        "AsyncClient", AsyncClient.from_url(stream_url(url), retry=retry, **_connection_options(name, block_ms))
    )
    _keep_raw(client)
    return client


def _connection_options(name: str, block_ms: int) -> dict[str, Any]:
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


def _keep_raw(client: Client | AsyncClient) -> None:
    """Have entries come as the server sends them: a dict would hide the order of fields and doubled names."""
    for command in _RAW:
        client.set_response_callback(command, _raw)


def pairs_of(flat: Sequence[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of an entry, doubled names included."""
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def text_of(raw: bytes | str | int) -> str:
    """Return a name, an id or a cursor of the server as text, whichever way the driver gave it."""
    return raw.decode() if isinstance(raw, bytes) else str(raw)


@contextmanager
def _translated() -> Iterator[None]:
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
    """Return the server's own code of an error, or the driver's class where it has none."""
    for driver, code in _CODES.items():
        if isinstance(error, driver):
            return code
    # Of a pipeline: "Command # 1 (XADD …) of pipeline caused error: WRONGTYPE …".
    first = str(error).rpartition(" caused error: ")[2].split(" ", 1)[0].rstrip(":")
    return first if first.isupper() and first.isalpha() else type(error).__name__


def _raw(response: Any, **_options: Any) -> Any:  # noqa: ANN401 - the driver's own border
    return response
