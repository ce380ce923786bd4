"""A pooler in front of PostgreSQL that shares its sessions out by transaction, as pgbouncer does where it is set so.

Owns: logging clients in, which session a transaction gets: the one that was used last.
Must not know: what is asked.
Invariant: a client has a session from the first message of a transaction until the server is idle again.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

import psycopg

_SSL, _GSS = 80877103, 80877104
#: Query and Sync: the server answers, and is ready then.
_ANSWERED = frozenset({b"Q", b"S"})
#: Authentication went well; server encoding; ready, idle.
_LOGGED_IN = b"R" + struct.pack("!ii", 8, 0)
_READY = b"Z" + struct.pack("!i", 5) + b"I"


class TransactionPooler:
    """Listens on a loopback port until it is closed."""

    def __init__(self, database_url: str, *, sessions: int = 3) -> None:
        """Open the sessions of the pool and listen."""
        self._idle: list[socket.socket] = []
        self._change = threading.Condition()
        self._owners = [psycopg.connect(database_url, autocommit=True) for _ in range(sessions)]
        self._idle = [socket.socket(fileno=os.dup(owner.fileno())) for owner in self._owners]
        for session in self._idle:
            session.setblocking(True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        info = self._owners[0].info
        self.url = f"postgresql://{info.user}@127.0.0.1:{self._listener.getsockname()[1]}/{info.dbname}?sslmode=disable"

    def close(self) -> None:
        """End every connection, and wait for the threads."""
        for each in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        with self._change:
            self._change.notify_all()
        for thread in self._threads:
            thread.join(5)
        for session in self._idle:
            session.close()
        for owner in self._owners:
            owner.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._clients.append(client)
                thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            _log_in(client)
            while True:
                kind, message = _message(client)
                if kind == b"X":
                    return
                with self._session() as session:
                    session.sendall(kind + message)
                    _transaction(client, session, pending=kind in _ANSWERED)

    @contextlib.contextmanager
    def _session(self) -> Iterator[socket.socket]:
        with self._change:
            self._change.wait_for(lambda: bool(self._idle))
            session = self._idle.pop()
        try:
            yield session
        finally:
            with self._change:
                self._idle.append(session)
                self._change.notify()


def _transaction(client: socket.socket, session: socket.socket, *, pending: bool) -> None:
    """Pass messages both ways until the server is ready and in no transaction."""
    while True:
        while pending:
            kind, message = _message(session)
            client.sendall(kind + message)
            pending = kind != b"Z"
            if not pending and message[-1:] == b"I":
                return
        kind, message = _message(client)
        session.sendall(kind + message)
        pending = kind in _ANSWERED


def _log_in(client: socket.socket) -> None:
    while True:
        size, code = struct.unpack("!ii", _exactly(client, 8))
        if code not in {_SSL, _GSS}:
            _exactly(client, size - 8)
            break
        client.sendall(b"N")
    states = (b"server_version\x0018.0\x00", b"client_encoding\x00UTF8\x00", b"standard_conforming_strings\x00on\x00")
    client.sendall(_LOGGED_IN + b"".join(b"S" + struct.pack("!i", 4 + len(state)) + state for state in states) + _READY)


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    """Return the kind of a message, and its length and contents."""
    kind, length = _exactly(source, 1), _exactly(source, 4)
    return kind, length + _exactly(source, struct.unpack("!i", length)[0] - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts
