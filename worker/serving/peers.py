"""The other living workers, as their heartbeats state them.

Owns: who can answer a strategy's requests, and who answers them better than this worker.
Must not know: requests, how an entry changes its owner.
Invariant: of any two workers at most one answers better, by one order over the whole fleet: the newer snapshot, then
the later activation; so an entry that each leaves to a better one never comes back.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contracts import GROUP, StreamNames, WorkerState
from worker.errors import GroupVanished, StreamUnavailable
from worker.serving.slots import Rank, Slots
from worker.transport.client import Client, text_of

#: Fields of a heartbeat that are read.
_FIELDS = ("state", "serving", "loading", "snapshot_order", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One other worker."""

    worker: str
    state: str
    #: Strategy to the activation that serves it there.
    serving: Mapping[str, int]
    #: Strategies whose active version is being loaded there.
    loading: tuple[str, ...]
    #: Order of the snapshot that serves there; empty: none.
    snapshot_order: str
    #: Why it cannot answer everything.
    reason: str

    def rank(self, strategy: str) -> Rank | None:
        """Return how well it answers a strategy's requests now; None: it does not."""
        activation = self.serving.get(strategy)
        if activation is None or not self.snapshot_order or self.state != WorkerState.SERVING:
            return None
        return self.snapshot_order, activation

    def will_answer(self, strategy: str) -> bool:
        """Return whether it answers them once it is resumed, or has loaded what it loads."""
        paused = self.state == WorkerState.PAUSED and strategy in self.serving
        return paused or strategy in self.loading


class Peers:
    """Looked at by the consumer for each request; refreshed by the heartbeat's thread."""

    def __init__(self, names: StreamNames, worker: str, slots: Slots) -> None:
        """Begin without any."""
        self._names, self._worker, self._slots = names, worker, slots
        self._all: tuple[Peer, ...] = ()

    def refresh(self, commands: Client) -> None:
        """Read the heartbeats of the group's other consumers.

        Raises:
            StreamUnavailable: The server is unavailable; what was known stays.
        """
        names = [name for name in self._consumers(commands) if name != self._worker]
        with commands.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._names.worker(name), _FIELDS)
            rows = pipe.execute() if names else []
        self._all = tuple(_peer(name, row) for name, row in zip(names, rows, strict=True) if row[0] is not None)

    def better(self, strategy: str) -> str:
        """Return the name of a worker that answers the strategy's requests better than this one; empty: none does."""
        own = self._slots.rank(strategy)
        ranked = [(rank, peer.worker) for peer in self._all if (rank := peer.rank(strategy)) is not None]
        best = max((rank for rank, _ in ranked), default=None)
        if best is None or (own is not None and best <= own):
            return ""
        return random.choice([worker for rank, worker in ranked if rank == best])  # noqa: S311 - any of equals

    def serve(self) -> bool:
        """Return whether any other worker reads requests now."""
        return any(peer.state == WorkerState.SERVING for peer in self._all)

    def will_answer(self, strategy: str) -> bool:
        """Return whether a worker, this one included, answers the strategy's requests soon without anybody's help."""
        return self._slots.loads(strategy) or any(peer.will_answer(strategy) for peer in self._all)

    def reasons(self, strategy: str) -> str:
        """Return in one sentence why no other worker answers a strategy's requests; empty: there is no other one."""
        return "; ".join(self._reasons(strategy))

    def _reasons(self, strategy: str) -> Iterator[str]:
        for peer in self._all:
            served = ", ".join(peer.serving) or "nothing"
            why = peer.reason or (f"serves {served}" if strategy not in peer.serving else peer.state)
            yield f"{peer.worker}: {why}"

    def _consumers(self, commands: Client) -> list[str]:
        # The group's own list: a look through all keys would also meet every remembered request id.
        try:
            rows = commands.xinfo_consumers(self._names.requests, GROUP)
        except GroupVanished:
            return []
        except StreamUnavailable as error:
            if "no such key" in str(error):
                return []
            raise
        return [row["name"].decode(errors="surrogateescape") for row in rows]


def _peer(name: str, row: list[bytes | None]) -> Peer:
    fields = dict(zip(_FIELDS, (text_of(value) if value is not None else "" for value in row), strict=True))
    return Peer(
        worker=name,
        state=fields["state"],
        serving=_serving(fields["serving"]),
        loading=tuple(name for name in fields["loading"].split(",") if name),
        snapshot_order=fields["snapshot_order"],
        reason=fields["reason"][:200],
    )


def _serving(text: str) -> dict[str, int]:
    """Return strategy to activation; anybody may write a heartbeat, so what cannot be read is nothing."""
    try:
        rows: Any = json.loads(text or "[]")
        return {str(row["strategy"]): int(row["activation"]) for row in rows}
    except (ValueError, TypeError, KeyError):
        return {}
