"""The hand that breaks things: every kind of fault that a run injects from outside.

Owns: how each kind is done, and what the servers lost by it.
Must not know: which requests are asked, how often a kind is chosen.
Invariant: each kind leaves servers that answer again; what a server may forget by it was taken down before.
"""

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from contracts import GROUP
from tests.support.checker import Ledger
from tests.support.fleet import Process
from tests.support.proxy import Proxy
from tests.support.replica import Replica, answers, follow, lead, require
from tests.support.servers import PrivateServers
from tests.support.serving import Streams
from worker.errors import StreamUnavailable

_APPEND_ONLY = "appendonlydir"


@dataclass(slots=True, kw_only=True)
class Scene:
    """What can be broken."""

    servers: PrivateServers
    #: How the producer and this hand reach the stream server; nobody cuts it.
    door: Proxy
    streams: Streams
    #: One a worker.
    proxies: Sequence[Proxy]
    workers: list[Process | None]
    ledger: Ledger
    #: Adds that many requests.
    produce: Callable[[int], None]
    #: `always` or `everysec`: when the server's append-only file reaches the disk.
    appendfsync: str = "everysec"
    promotions: int = field(default=0)


class Hand:
    """Injects faults; `kinds` names them."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self._scene, self._rng = scene, rng
        self.kinds: Mapping[str, Callable[[], None]] = {
            "worker killed": self._kill_worker,
            "worker stopped longer than its lease": self._stop_worker,
            "connections cut": lambda: self._some_proxy().cut(),
            "network deaf": self._deafen,
            "network slow": self._slow,
            "scripts flushed": lambda: self.tell("SCRIPT", "FLUSH"),
            "clients killed": lambda: self.tell("CLIENT", "KILL", "TYPE", "normal"),
            "server paused": lambda: self.tell("CLIENT", "PAUSE", "300", "ALL"),
            "group destroyed": lambda: self.tell("XGROUP", "DESTROY", "signals:requests", GROUP),
            "requests trimmed, pending ones too": self._trim,
            "server full": self._fill,
            "server emptied": self._flush,
            "server killed": self._kill_server,
            "server back from an older file": self._restore_older_file,
            "replica promoted": self._promote,
            "registry killed": self._kill_registry,
            "control connection cut": self._cut_control,
            "control stream deleted": lambda: self.tell("DEL", "signals:control"),
            "control garbage": lambda: self.tell("XADD", "signals:control", "*", "type", "no such thing"),
            "reload": lambda: self.tell("XADD", "signals:control", "*", "type", "reload"),
        }

    def tell(self, *command: str) -> None:
        """Say a command to the stream server, which may be away."""
        with suppress(StreamUnavailable, OSError):
            self._scene.streams.client.execute_command(*command)

    def set_up_server(self) -> None:
        """Tell a stream server that was just started what no file tells it."""
        self.tell("CONFIG", "SET", "appendfsync", self._scene.appendfsync)

    def _some_proxy(self) -> Proxy:
        return self._rng.choice(self._scene.proxies)

    def _some_worker(self) -> Process | None:
        worker = self._rng.choice(self._scene.workers)
        return worker if worker is not None and worker.running() else None

    def _kill_worker(self) -> None:
        if worker := self._some_worker():
            worker.signal(signal.SIGKILL)
            worker.wait()

    def _stop_worker(self) -> None:
        if worker := self._some_worker():
            worker.signal(signal.SIGSTOP)
            time.sleep(1.0)
            worker.signal(signal.SIGCONT)

    def _deafen(self) -> None:
        proxy = self._some_proxy()
        proxy.deaf.set()
        time.sleep(self._rng.uniform(0.1, 1.2))
        proxy.deaf.clear()

    def _slow(self) -> None:
        proxy = self._some_proxy()
        proxy.delay_seconds, proxy.trickle_bytes = 0.005, 200
        time.sleep(0.3)
        proxy.heal()

    def _fill(self) -> None:
        self.tell("CONFIG", "SET", "maxmemory", "1")
        time.sleep(0.3)
        self.tell("CONFIG", "SET", "maxmemory", "0")

    def _trim(self) -> None:
        with self._scene.ledger.forgetting():
            self.tell("XTRIM", "signals:requests", "MAXLEN", "30")

    def _kill_server(self) -> None:
        """Kill the server while workers are at it; what it had not written to its file is gone."""
        with self._scene.ledger.forgetting():
            self._scene.servers.kill("valkey")
            self._scene.servers.start()
            self.set_up_server()

    def _kill_registry(self) -> None:
        self._scene.servers.kill("postgres")
        self._scene.servers.start()

    def _cut_control(self) -> None:
        for client in self._scene.streams.client.client_list():
            if client["name"].endswith(":listener"):
                self.tell("CLIENT", "KILL", "ID", client["id"])

    def _flush(self) -> None:
        """Empty the server while workers are at it; what it said until then was read by others."""
        ledger = self._scene.ledger
        with ledger.forgetting(), self._scene.streams.client.pipeline(transaction=True) as pipe:
            tails = ledger.tail()
            for stream, last in tails:
                pipe.execute_command("XRANGE", stream, f"({last}", "+")  # type: ignore[no-untyped-call]
            pipe.flushall()
            for (stream, _), found in zip(tails, pipe.execute(), strict=False):
                ledger.take(stream, found)

    def _restore_older_file(self) -> None:
        """Bring the server back as it was a while ago: as after a failover that lost the last writes."""
        scene, live = self._scene, self._scene.servers.home / _APPEND_ONLY
        older = scene.servers.home / "older"
        shutil.rmtree(older, ignore_errors=True)
        self.tell("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")  # a copy of a file that is being exchanged
        shutil.copytree(live, older)
        scene.produce(20)
        time.sleep(self._rng.uniform(0.05, 0.5))
        with self._quiet(), scene.ledger.forgetting():
            scene.servers.kill("valkey")
            shutil.rmtree(live)
            shutil.move(older, live)
            scene.servers.start()
            self.set_up_server()

    def _promote(self) -> None:
        """Fail over to a replica and back, each time losing what the old leader took in its last moment."""
        scene = self._scene
        first = scene.servers.endpoints.redis_url
        scene.promotions += 1
        replica = Replica(scene.servers.program, scene.servers.home / f"replica-{scene.promotions}", first)
        try:
            self._fail_over(replica.url)
            scene.produce(20)
            time.sleep(0.3)
            follow(first, replica.url)
            self._fail_over(first)
        finally:
            replica.close()

    def _fail_over(self, url: str) -> None:
        scene = self._scene
        proxy = self._some_proxy()
        proxy.lead_to(url)
        proxy.cut()  # one worker meets the replica while it takes no writes
        time.sleep(0.1)
        lead(url)
        time.sleep(0.05)
        with self._quiet(), scene.ledger.forgetting():
            for one in (scene.door, *scene.proxies):
                one.lead_to(url)
                one.cut()
            require(lambda: answers(scene.door.url), "the promoted replica does not answer")

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Let no worker reach a server."""
        for proxy in self._scene.proxies:
            proxy.refusing.set()
            proxy.cut()
        # What a worker had sent before is done by the time the server answers us; its reply is lost.
        self.tell("PING")
        try:
            yield
        finally:
            for proxy in self._scene.proxies:
                proxy.refusing.clear()
