"""Where published vectors are found: on results, probes or the shadow stream, and in its archive once that was cut.

Owns: the search by entry id, by request id and by day.
Must not know: how vectors are computed.
Invariant: a vector that is in both places is found once.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import structlog

from contracts import ContractError, SignalVector, StreamNames
from contracts.codec import decode
from contracts.entry_ids import EntryId
from worker.errors import WorkerError
from worker.operations.archive import Archive, day_of, ids_between, stream_entries
from worker.transport.client import Client

_log = structlog.get_logger()
_ENTRY_ID = re.compile(r"\d{1,15}-\d{1,20}")


class NotPublished(WorkerError):
    """No vector of that name is on the stream or in the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One vector as it was published."""

    #: On its stream.
    entry_id: str
    vector: SignalVector
    found_in: Literal["stream", "archive"]


class Publications:
    """All vectors of one stream that can still be read."""

    def __init__(self, client: Client | None, names: StreamNames, archive: Archive) -> None:
        """Take a connection that does not block, or None to read the archive alone, and the archive of the stream."""
        self._client, self._names, self._archive = client, names, archive
        self._stream = archive.stream
        self._shadow = archive.stream == names.shadow

    def find(self, name: str) -> Published:
        """Return the vector of an entry of the stream, or else of a request id.

        Raises:
            NotPublished: There is none, or what is there is no vector.
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        entry_ids = [name] if _ENTRY_ID.fullmatch(name) else []
        if remembered := self._remembered(name):
            entry_ids.append(remembered)
        found = next(self.fetch(entry_ids[:1]), None) or next(self.fetch(entry_ids[1:]), None)
        found = found or self._archived_answer(name) or self._streamed_answer(name)
        if found is None:
            raise NotPublished(f"no vector of entry or request {name} on {self._stream} or in its archive")
        return found

    def find_all(self, name: str) -> list[Published]:
        """Return the vector of a result entry or request id; on the shadow stream those of all candidates.

        Raises:
            NotPublished: There is none, or what is there is no vector.
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        if not self._shadow:
            return [self.find(name)]
        found = list(self.fetch([name] if _ENTRY_ID.fullmatch(name) else []))
        if not found:
            archived = [entry.entry_id for entry in self._archive.answers_to(name)]
            found = list(self.fetch(list(dict.fromkeys([*archived, *self._entries_of(name)]))))
        if not found:
            raise NotPublished(f"no vector of entry or request {name} on {self._stream} or in its archive")
        return found

    def sample(self, first: date, last: date, count: int, seed: int) -> tuple[list[str], int]:
        """Return entry ids of vectors added on these UTC days, drawn without replacement, and how many there are.

        Args:
            first: First day.
            last: Last day, included.
            count: Most ids drawn.
            seed: The same seed draws the same ids from the same entries.

        Raises:
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        ids = {entry for day in self._archive.days() if first <= day <= last for entry in self._archive.entry_ids(day)}
        if self._client is not None:
            ids.update(entry for entry, _ in stream_entries(self._client, self._stream, *ids_between(first, last)))
        ordered = sorted(ids, key=EntryId.parse)
        drawn = random.Random(seed).sample(ordered, min(count, len(ordered)))  # noqa: S311 - a sample, not cryptography
        return sorted(drawn, key=EntryId.parse), len(ordered)

    def fetch(self, entry_ids: Sequence[str]) -> Iterator[Published]:
        """Yield the vectors of these entries; what is gone, or is no vector, is left out.

        Raises:
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        gone: dict[date, list[str]] = {}
        for entry_id in entry_ids:
            streamed = self._streamed(entry_id)
            if streamed is not None:
                yield streamed
            else:
                gone.setdefault(day_of(entry_id), []).append(entry_id)
        for day, ids in gone.items():
            for entry in self._archive.entries(day, ids):
                yield Published(entry_id=entry.entry_id, vector=decode(SignalVector, entry.pairs), found_in="archive")

    def _streamed(self, entry_id: str) -> Published | None:
        if self._client is None:
            return None
        for found, pairs in stream_entries(self._client, self._stream, entry_id, entry_id):
            try:
                return Published(entry_id=found, vector=decode(SignalVector, pairs), found_in="stream")
            except ContractError as error:
                _log.warning("entry_is_no_vector", stream=self._stream, entry=found, reason=str(error)[:200])
        return None

    def _remembered(self, request_id: str) -> str:
        if self._client is None:
            return ""
        key = self._names.request(request_id)
        state, stream, entry = self._client.execute_command("HMGET", key, "state", "stream", "entry")
        if entry is not None and state != b"done":
            raise NotPublished(f"request {request_id} was rejected, as entry {entry.decode()} of the rejections says")
        return entry.decode() if entry and stream == self._stream.encode() else ""

    def _archived_answer(self, request_id: str) -> Published | None:
        entry = self._archive.answer_to(request_id)
        if entry is None:
            return None
        return Published(entry_id=entry.entry_id, vector=decode(SignalVector, entry.pairs), found_in="archive")

    def _streamed_answer(self, request_id: str) -> Published | None:
        """Look through the whole stream: an id is forgotten after a day, its vector later."""
        entry_id = next(self._entries_of(request_id), None)
        return None if entry_id is None else self._streamed(entry_id)

    def _entries_of(self, request_id: str) -> Iterator[str]:
        if self._client is not None:
            asked = (b"request_id", request_id.encode())
            rows = stream_entries(self._client, self._stream)
            yield from (entry_id for entry_id, pairs in rows if asked in pairs)
