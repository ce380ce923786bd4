"""Leases on the entries that this worker has in flight.

Owns: which entries are in flight, and the renewal of their idle time by the server's clock.
Must not know: what is computed for them.
Invariant: an entry is in flight from the reply that delivered it until its outcome is committed or it is nacked.
"""

import threading
from collections.abc import Iterable

import structlog

from contracts import GROUP, StreamNames
from worker.transport.client import Client
from worker.transport.scripts import RenewLeases

_log = structlog.get_logger()


class Leases:
    """Entries in flight; `add` and `discard` are called by the consumer's thread, `renew` by the heartbeat's."""

    def __init__(self, commands: Client, names: StreamNames, consumer: str) -> None:
        """Take the heartbeat thread's connection."""
        self._commands, self._names, self._consumer = commands, names, consumer
        self._lock = threading.Lock()
        #: Locked while the server renews what was in flight when the renewal began.
        self._renewing = threading.Lock()
        self._in_flight: set[str] = set()
        self.lost = 0

    def add(self, entry_ids: Iterable[str]) -> None:
        """Note entries that were delivered."""
        with self._lock:
            self._in_flight.update(entry_ids)

    def discard(self, entry_id: str) -> None:
        """Note that an entry is no longer in flight."""
        with self._lock:
            self._in_flight.discard(entry_id)

    def release(self, entry_id: str) -> None:
        """Discard an entry that is to be nacked; returns once no renewal is under way that still names it."""
        self.discard(entry_id)
        with self._renewing:
            pass

    def in_flight(self) -> frozenset[str]:
        """Return the ids in flight."""
        with self._lock:
            return frozenset(self._in_flight)

    def busy(self) -> bool:
        """Return whether anything is in flight."""
        return bool(self._in_flight)

    def renew(self) -> None:
        """Renew every lease, and discard entries that another consumer owns now.

        The commit script would refuse their outcomes anyway; discarding them ends their renewal.
        """
        with self._renewing:
            entry_ids = sorted(self.in_flight())
            lost = self._renew(entry_ids) if entry_ids else ()
        if entry_ids:
            _log.debug("leases_renewed", entries=entry_ids, lost=list(lost))
        for entry_id in lost:
            if entry_id in self.in_flight():
                self.lost += 1
                self.discard(entry_id)
                _log.warning("lease_lost", entry=entry_id)

    def _renew(self, entry_ids: list[str]) -> tuple[str, ...]:
        return self._commands.run(
            RenewLeases(requests=self._names.requests, group=GROUP, consumer=self._consumer, entry_ids=entry_ids)
        )
