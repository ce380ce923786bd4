"""A second stream server that follows a first one, until it is promoted.

Owns: its process and configuration, following and leading.
Must not know: workers, what is on the server.
Invariant: it speaks the first one's password and dialect, and ends with its test.
"""

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import redis

from tests.support.servers import connect_redis
from worker.embedded.identity import free_port
from worker.embedded.processes import Launch, launch, wait_until

#: Time that a server has to start, or to copy what the other has, in seconds.
_PATIENCE = 60.0


class Replica:
    """A server beside the one at a URL, holding a copy of it."""

    def __init__(self, program: Path, folder: Path, url: str) -> None:
        """Start it and wait until it has copied what the other one has."""
        parts = urlsplit(url)
        port = free_port()
        self.url = urlunsplit(parts._replace(netloc=f":{parts.password}@127.0.0.1:{port}"))
        folder.mkdir(exist_ok=True)
        configuration = folder / "replica.conf"
        configuration.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {parts.password}\ndir "{folder}"\nsave ""\nappendonly no\n',
            encoding="utf-8",
        )
        order = Launch(
            command=(str(program), str(configuration)), log=folder / "replica.log", death_signal=signal.SIGKILL
        )
        self._process = launch(order)
        require(lambda: answers(self.url), "the replica did not start")
        follow(self.url, url)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


def follow(url: str, leader: str) -> None:
    """Let one server copy another, and return once it has."""
    parts = urlsplit(leader)
    with connect_redis(url) as client:
        client.config_set("masterauth", parts.password or "")
        client.execute_command("REPLICAOF", parts.hostname or "127.0.0.1", parts.port or 6379)

    def follows() -> bool:
        with suppress(redis.RedisError), connect_redis(url) as client:
            return bool(client.info("replication").get("master_link_status") == "up")
        return False

    require(follows, "the replica did not copy its leader")


def lead(url: str) -> None:
    """Let a server follow nobody any more."""
    with connect_redis(url) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")


def answers(url: str) -> bool:
    """Return whether a server takes commands."""
    with suppress(redis.RedisError), connect_redis(url) as client:
        return bool(client.ping())
    return False


def require(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until it is so.

    Raises:
        TimeoutError: It was not in a minute.
    """
    if not wait_until(condition, _PATIENCE):
        raise TimeoutError(otherwise)
