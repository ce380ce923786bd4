"""Leases on the entries that this worker has in hand.

Owns: which entries are in hand, and the renewal of their idle time by the server's clock.
Must not know: what is computed for them.
Invariant: an entry is in hand from the reply that delivered it until its outcome is committed or it is given back.
"""

import threading
from collections.abc import Iterable

import structlog

from contracts import GROUP, StreamNames
from worker.transport.client import Client, translated
from worker.transport.scripts import script

_log = structlog.get_logger()


class Leases:
    """Entries in hand; `hold` and `drop` are called by the consumer's thread, `renew` by the heartbeat's."""

    def __init__(self, commands: Client, names: StreamNames, consumer: str) -> None:
        """Take the heartbeat thread's connection."""
        self._renew = script(commands, "renew_leases")
        self._names, self._consumer = names, consumer
        self._lock = threading.Lock()
        #: Held while the server renews what was in hand at its beginning.
        self._renewing = threading.Lock()
        self._held: set[str] = set()
        self.lost = 0

    def hold(self, entry_ids: Iterable[str]) -> None:
        """Take entries in hand."""
        with self._lock:
            self._held.update(entry_ids)

    def drop(self, entry_id: str) -> None:
        """Let go of an entry."""
        with self._lock:
            self._held.discard(entry_id)

    def let_go(self, entry_id: str) -> None:
        """Let go of an entry that is to be given back, once no renewal is under way that still names it."""
        self.drop(entry_id)
        with self._renewing:
            pass

    def held(self) -> frozenset[str]:
        """Return the ids in hand."""
        with self._lock:
            return frozenset(self._held)

    def renew(self) -> None:
        """Renew every lease, and let go of those that another consumer has taken.

        The commit script would refuse their outcomes anyway; letting go stops the renewal.
        """
        with self._renewing:
            held = sorted(self.held())
            lost = self._renewed(held) if held else []
        for raw in lost:
            entry_id = raw.decode()
            if entry_id in self.held():
                self.lost += 1
                self.drop(entry_id)
                _log.warning("lease_lost", entry=entry_id)

    def _renewed(self, held: list[str]) -> list[bytes]:
        with translated():
            lost: list[bytes] = self._renew(keys=[self._names.requests], args=[GROUP, self._consumer, *held])
        return lost
