"""The workers of a namespace, with the age of their last heartbeat.

Owns: when a worker counts as silent or gone.
Must not know: what workers serve, how it is shown.
Invariant: only reads; a worker that missed its heartbeats never counts as serving.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contracts import Heartbeat, StreamNames
    from worker.transport.client import Client

SILENT, GONE, UNREADABLE = "silent", "gone", "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBeat:
    """One worker and its last heartbeat."""

    worker: str
    #: That of the heartbeat; `silent`: heartbeats are overdue; `gone`: the heartbeat expired, entries or the consumer
    #: are left; `unreadable`: the heartbeat is of another release.
    state: str
    #: Age of the last heartbeat by the server's clock; of a worker that is gone, time since it last read.
    beat_age_ms: int
    #: None: it is gone, or cannot be read.
    heartbeat: "Heartbeat | None" = None

    @property
    def beats(self) -> bool:
        """Whether its heartbeats arrive."""
        return self.heartbeat is not None and self.state != SILENT


def read_fleet(client: "Client", names: "StreamNames") -> list[WorkerBeat]:
    """Return every worker that beats, is silent or is gone, by name.

    Raises:
        StreamUnavailable: The server cannot be reached.
    """
    now_ms = int(client.server_time().timestamp() * 1000)
    keys = sorted(client.scan_iter(match=names.worker("*"), count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
            pipe.pttl(key)
        replies = pipe.execute()
    found = [
        _beat(_text(key).removeprefix(names.worker("")), fields, int(left_ms), now_ms)
        for key, fields, left_ms in zip(keys, replies[::2], replies[1::2], strict=True)
        if fields
    ]
    beating = {one.worker for one in found}
    found += [one for one in _consumers(client, names) if one.worker not in beating]
    return sorted(found, key=lambda one: one.worker)


def _beat(worker: str, fields: Mapping[bytes, bytes], left_ms: int, now_ms: int) -> WorkerBeat:
    from contracts import ContractError, Heartbeat
    from contracts.codec import decode

    try:
        heartbeat = decode(Heartbeat, tuple(fields.items()))
    except ContractError:
        return WorkerBeat(worker=worker, state=UNREADABLE, beat_age_ms=0)
    age_ms = max(0, now_ms - int(heartbeat.beaten_at.timestamp() * 1000))
    # Each heartbeat gives the key a life of several intervals; once half of it is over, more than one is overdue.
    # A key without a life (-1) was written by hand.
    state = SILENT if age_ms > left_ms >= 0 else heartbeat.state.value
    return WorkerBeat(worker=worker, state=state, beat_age_ms=age_ms, heartbeat=heartbeat)


def _consumers(client: "Client", names: "StreamNames") -> list[WorkerBeat]:
    """Return the consumers of the group as workers that are gone: one that ends in order removes its consumer."""
    from contracts import GROUP
    from worker.errors import StreamUnavailable

    try:
        consumers: list[dict[str, Any]] = client.xinfo_consumers(names.requests, GROUP)
    except StreamUnavailable as error:
        if error.reason not in {"NOGROUP", "ResponseError"}:  # no group, or no stream: nobody ever read
            raise
        return []
    return [WorkerBeat(worker=_text(one["name"]), state=GONE, beat_age_ms=int(one["idle"])) for one in consumers]


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
