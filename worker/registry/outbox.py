"""The registry's outbox.

Owns: which events are still to be published, who publishes them, when they may be forgotten.
Must not know: streams, how often it is asked.
Invariant: an event is pending until it is marked. There is no cursor, so a row that commits after its successors is not
skipped; and one session at a time leads, by a lock that ends with the session.
"""

import select
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from worker.errors import RegistryUnavailable
from worker.registry.postgres import answering, connect, translated

#: Notification channel of `migrations/`; a notification is a hint, the rows are the truth.
CHANNEL = "model_registry"
#: Events read at once.
BATCH = 100
#: Any number, the same in every release: the advisory lock of publishers.
_LOCK = 7_265_002


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """One change of the registry that workers are informed of."""

    id: int
    type: str
    strategy: str
    version: str
    activation: int
    reason: str | None
    actor: str
    at: datetime

    def fields(self) -> dict[str, str]:
        """Return the event as the flat fields of a control entry."""
        fields = {
            "type": self.type,
            "strategy": self.strategy,
            "version": self.version,
            "activation": str(self.activation),
            "by": self.actor,
            "at": self.at.isoformat().replace("+00:00", "Z"),
        }
        return fields | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStatus:
    """How publishing goes."""

    #: Whether a session has the lead.
    led: bool
    #: Events that are not marked as published.
    waiting: int
    #: Age of the oldest of them; 0 without any.
    oldest_seconds: float


def publisher_status(database_url: str) -> PublisherStatus:
    """Return how publishing goes; a login in `signal_publisher` or `signal_admin` may ask.

    Raises:
        RegistryUnavailable: The registry does not answer.
    """
    with translated(), connect(database_url, "signal-worker publish-registry --check") as connection:
        row = connection.execute(
            """
            SELECT
                EXISTS (
                    SELECT FROM pg_catalog.pg_locks AS l
                    JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = current_database()
                    WHERE l.locktype = 'advisory' AND l.granted
                    AND (l.classid::bigint << 32 | l.objid::bigint, l.objsubid) = (%s, 1)
                ) AS led,
                count(*) AS waiting,
                coalesce(extract(epoch FROM clock_timestamp() - min(a.at)), 0)::double precision AS oldest_seconds
            FROM public.registry_outbox AS o JOIN public.model_activations AS a USING (activation)
            WHERE o.published_at IS NULL
            """,
            (_LOCK,),
        ).fetchone()
    if row is None:
        raise RegistryUnavailable("the registry did not say how publishing goes")
    return PublisherStatus(**row)


class Outbox:
    """One session with the outbox: it listens from the start, and ends when its connection does.

    Every method raises `RegistryUnavailable` when the connection is lost; a lost session is never used again.
    """

    def __init__(self, database_url: str) -> None:
        """Connect and listen."""
        # LISTEN and the lock belong to a session: a pooler that shares sessions out by transaction would lose both.
        self._connection = connect(database_url, "signal-worker publish-registry")
        self.leads = False
        try:
            self._listen()
        except RegistryUnavailable:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session, which gives the lock back."""
        self._connection.close()

    def check(self) -> None:
        """Raise if the session no longer answers; listen again in case the server forgot."""
        self._listen()

    def lead(self) -> bool:
        """Return whether this session is the one that publishes, trying for it if it is not."""
        if not self.leads:
            with answering(self._connection) as connection:
                row = connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (_LOCK,)).fetchone()
            self.leads = bool(row and row["got"])
        return self.leads

    def release_lead(self) -> None:
        """Let another session publish."""
        if self.leads:
            self.leads = False
            with answering(self._connection) as connection:
                connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    def pending(self) -> tuple[OutboxEvent, ...]:
        """Return the oldest events that are not marked, at most `BATCH`, in order."""
        with answering(self._connection) as connection:
            rows = connection.execute(
                """
                SELECT o.id, o.type, a.strategy_name AS strategy, a.version, a.activation, a.reason, a.actor, a.at
                FROM public.registry_outbox AS o JOIN public.model_activations AS a USING (activation)
                WHERE o.published_at IS NULL ORDER BY o.id LIMIT %s
                """,
                (BATCH,),
            ).fetchall()
        return tuple(OutboxEvent(**row) for row in rows)

    def mark(self, event: OutboxEvent) -> None:
        """Note that the event was published."""
        with answering(self._connection) as connection:
            connection.execute(
                "UPDATE public.registry_outbox SET published_at = clock_timestamp() WHERE id = %s", (event.id,)
            )

    def forget(self, days: int) -> int:
        """Delete what was published longer ago than that many days, and return how many events it was."""
        with answering(self._connection) as connection:
            return connection.execute(
                "DELETE FROM public.registry_outbox WHERE published_at < now() - make_interval(days => %s)", (days,)
            ).rowcount

    def wait(self, wake: socket.socket, seconds: float) -> None:
        """Return when a notification came, `wake` can be read, or the time is over."""
        # Notifications that came along with the answer to a question no longer make the socket readable.
        if not self._notified():
            select.select([self._connection.fileno(), wake.fileno()], [], [], seconds)
            self._notified()

    def _listen(self) -> None:
        with answering(self._connection) as connection:
            connection.execute(f"LISTEN {CHANNEL}")

    def _notified(self) -> bool:
        with answering(self._connection) as connection:
            return bool(list(connection.notifies(timeout=0)))
