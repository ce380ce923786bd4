"""A loopback TCP proxy that can cut, go deaf, delay and throttle.

Owns: the connections between clients and one server, and what is done to their bytes.
Must not know: protocols.
Invariant: bytes are never changed or reordered; a cut connection loses what was under way, as on a real network.
"""

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 65_536


@dataclass(frozen=True, slots=True, eq=True)
class _Direction:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket

    def __hash__(self) -> int:
        return hash((id(self.source), id(self.sink)))


class Proxy:
    """Forwards one port to a server's until told otherwise; one thread."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        #: Where new connections lead.
        self.target = _address(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        credentials = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        #: URL through the proxy.
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}127.0.0.1:{port}"))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open: set[_Direction] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        #: Nothing is forwarded, connections stay open: a peer that is gone without a word.
        self.deaf = threading.Event()
        #: New connections are refused at once.
        self.refusing = threading.Event()
        self.delay_seconds = 0.0
        #: Bytes forwarded at a time, with a pause of a millisecond after each; 0 = no limit.
        self.trickle_bytes = 0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def lead_to(self, url: str) -> None:
        """Lead new connections to another server, of the same password."""
        self.target = _address(url)

    def cut(self) -> None:
        """Close every connection, whatever is under way."""
        with self._lock:
            for key in list(self._open):
                self._close(key)

    def heal(self) -> None:
        """Forward everything at once again."""
        self.deaf.clear()
        self.refusing.clear()
        self.delay_seconds, self.trickle_bytes = 0.0, 0

    def close(self) -> None:
        """End the proxy."""
        self._end.set()
        self._thread.join(10)
        self.cut()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._end.is_set():
            if self.deaf.is_set():
                self._end.wait(0.01)
                continue
            for key, _ in self._selector.select(timeout=0.05):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._forward(key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.refusing.is_set():
            client.close()
            return
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            client.close()
            return
        with self._lock:
            for source, sink in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                key = _Direction(source, sink)
                self._open.add(key)
                self._selector.register(source, selectors.EVENT_READ, key)

    def _forward(self, key: _Direction) -> None:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        try:
            content = key.source.recv(self.trickle_bytes or _CHUNK)
            if content:
                key.sink.sendall(content)
                if self.trickle_bytes:
                    time.sleep(0.001)
                return
        except OSError:
            pass
        with self._lock:
            self._close(key)

    def _close(self, key: _Direction) -> None:
        for one in (key, _Direction(key.sink, key.source)):
            if one in self._open:
                self._open.discard(one)
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(one.source)
        for end in (key.source, key.sink):
            with contextlib.suppress(OSError):
                end.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 6379
