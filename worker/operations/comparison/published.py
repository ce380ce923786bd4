"""Pairs of published vectors: two versions' answers to one request, from the streams and their archive.

Owns: finding both vectors of a request on `results` and `shadow`, and what makes them comparable.
Must not know: measures, the registry.
Invariant: a request is one pair at most; of streams only ids and digests are kept, vectors are read a few at a time.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from contracts import ContractError, Purpose, SignalVector, StreamNames, weights_digest
from contracts.codec import decode
from contracts.entry_ids import EntryId
from strategies.analysis.comparison import ModelOutput, Pair
from worker.operations.archive import Archive, day_of, ids_between, stream_entries
from worker.operations.comparison.counts import Counts
from worker.transport.client import Client

#: Pairs whose vectors are in memory at once.
PIECE = 100
#: What identifies version and request of an entry, and whether another one is equal.
_HEADER = ("strategy", "model_version", "request_id", "weights_sha256")
#: What an entry may state beside it.
_HEADER_AND_PURPOSE = (*_HEADER, "purpose")

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairQuery:
    """Which pairs are asked for."""

    strategy: str
    #: Left and right.
    versions: tuple[str, str]
    #: Digest of the bundle that a version's vectors must state; None: any.
    bundles: tuple[str | None, str | None] = (None, None)
    #: UTC day from which on vectors were published; None: all that there are.
    since: date | None = None
    #: Most pairs, the latest ones.
    last: int = 10_000


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a vector is."""

    source: int
    entry_id: str
    digest: str

    @property
    def order(self) -> EntryId:
        return EntryId.parse(self.entry_id)


class VectorSource:
    """One stream with its archive: what is on both is read from the stream."""

    def __init__(self, client: Client, archive: Archive) -> None:
        """Take a connection that does not block, and the archive of the stream."""
        self._client, self._archive = client, archive

    def headers(self, since: date | None) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield id and identifying fields of every entry, archived ones first; what is missing is left out.

        Raises:
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        start = "-" if since is None else ids_between(since, since)[0]
        entries = stream_entries(self._client, self._archive.stream, start)
        first = next(entries, None)
        for day in self._archive.days():
            if since is None or day >= since:
                for entry_id, head in self._archive.headers(day, _HEADER_AND_PURPOSE):
                    if first is None or EntryId.parse(entry_id) < EntryId.parse(first[0]):
                        yield entry_id, head
        if first is not None:
            yield first[0], _head(first[1])
            yield from ((entry_id, _head(pairs)) for entry_id, pairs in entries)

    def vectors(self, entry_ids: Sequence[str]) -> dict[str, SignalVector]:
        """Return the vectors of these entries; what is gone, or is no vector, is left out.

        Raises:
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        found: dict[str, SignalVector] = {}
        archived: dict[date, list[str]] = {}
        for entry_id in entry_ids:
            rows = list(stream_entries(self._client, self._archive.stream, entry_id, entry_id))
            if not rows:
                archived.setdefault(day_of(entry_id), []).append(entry_id)
            _keep(found, entry_id, rows[0][1] if rows else None)
        for day, ids in archived.items():
            for entry in self._archive.entries(day, ids):
                _keep(found, entry.entry_id, entry.pairs)
        return found


@dataclass(slots=True)
class _Index:
    """Where both versions' vectors are, by request id."""

    sides: tuple[dict[str, _Place], dict[str, _Place]] = field(default_factory=lambda: ({}, {}))
    contradicted: set[str] = field(default_factory=set)


class PublishedPairs:
    """The pairs of one namespace's streams and their archive."""

    def __init__(self, sources: Sequence[VectorSource], wanted: PairQuery) -> None:
        """Take where vectors are, and which are asked for; nothing is read before `pairs`."""
        self._sources, self._wanted = tuple(sources), wanted
        #: Complete once `pairs` has ended.
        self.counts = Counts()

    def pairs(self) -> Iterator[Pair]:
        """Yield the latest pairs, in the order in which the right version answered.

        Raises:
            StreamUnavailable: The server is unavailable.
            ArchiveUnusable: A partition cannot be read.
        """
        left, right = self._indexed().sides
        both = sorted(left.keys() & right.keys(), key=lambda request_id: right[request_id].order)
        self.counts.left_alone, self.counts.right_alone = len(left) - len(both), len(right) - len(both)
        latest = both[-self._wanted.last :]
        self.counts.older = len(both) - len(latest)
        for start in range(0, len(latest), PIECE):
            places = [(left[request_id], right[request_id]) for request_id in latest[start : start + PIECE]]
            vectors = self._read([place for pair in places for place in pair])
            for one, other in places:
                if pair := self._pair(vectors.get(one), vectors.get(other)):
                    yield pair

    def _indexed(self) -> _Index:
        index = _Index()
        for number, source in enumerate(self._sources):
            for entry_id, head in source.headers(self._wanted.since):
                self._note(index, _Place(number, entry_id, head.get("weights_sha256", "")), head)
        for request_id in index.contradicted:
            for side in index.sides:
                side.pop(request_id, None)
        self.counts.contradictions = len(index.contradicted)
        return index

    def _note(self, index: _Index, place: _Place, head: Mapping[str, str]) -> None:
        self.counts.read += 1
        if head.get("purpose") == Purpose.PROBE:
            # What a person asks out of curiosity is no sample of what is traded.
            self.counts.probes += 1
            return
        if any(name not in head for name in _HEADER):
            self.counts.no_vector += 1
            return
        versions, request_id = self._wanted.versions, head["request_id"]
        if head["strategy"] != self._wanted.strategy or head["model_version"] not in versions:
            self.counts.of_others += 1
            return
        side = index.sides[versions.index(head["model_version"])]
        before = side.setdefault(request_id, place)
        if before is place:
            return
        if before.digest == place.digest:
            self.counts.duplicates += 1
        else:
            index.contradicted.add(request_id)

    def _read(self, places: Sequence[_Place]) -> dict[_Place, SignalVector]:
        found: dict[_Place, SignalVector] = {}
        for number, source in enumerate(self._sources):
            here = [place for place in places if place.source == number]
            vectors = source.vectors([place.entry_id for place in here])
            found |= {place: vectors[place.entry_id] for place in here if place.entry_id in vectors}
        return found

    def _pair(self, left: SignalVector | None, right: SignalVector | None) -> Pair | None:
        counts, bundles = self.counts, self._wanted.bundles
        if left is None or right is None:
            counts.no_vector += (left is None) + (right is None)
        elif not (_is_of(left, bundles[0]) and _is_of(right, bundles[1])):
            counts.of_another_bundle += 1
        elif left.as_of != right.as_of:
            counts.of_other_sessions += 1
        elif left.snapshot_id != right.snapshot_id:
            counts.of_other_bars += 1
        else:
            return Pair(
                question=_question(left, right), session=left.as_of, left=answer_of(left), right=answer_of(right)
            )
        return None


def vector_sources(client: Client, names: StreamNames, archives: Mapping[str, Archive]) -> tuple[VectorSource, ...]:
    """Return the streams on which vectors are published."""
    return tuple(VectorSource(client, archives[stream]) for stream in (names.results, names.shadow))


def answer_of(vector: SignalVector) -> ModelOutput:
    """Return a vector as it is compared."""
    return ModelOutput(
        symbols=tuple(signal.symbol for signal in vector.weights),
        predictions=np.array([signal.predicted_return for signal in vector.weights], dtype=np.float64),
        weights=np.array([signal.target_weight for signal in vector.weights], dtype=np.float64),
        compute_ms=vector.compute_ms,
    )


def _keep(found: dict[str, SignalVector], entry_id: str, pairs: Pairs | None) -> None:
    if pairs is None:
        return
    try:
        vector = decode(SignalVector, pairs)
    except ContractError:
        return
    if vector.weights_sha256 == weights_digest(vector.weights):
        found[entry_id] = vector


def _head(pairs: Pairs) -> Mapping[str, str]:
    wanted = {name.encode(): name for name in _HEADER_AND_PURPOSE}
    return {wanted[name]: value.decode(errors="replace") for name, value in pairs if name in wanted}


def _is_of(vector: SignalVector, bundle_sha256: str | None) -> bool:
    return bundle_sha256 is None or vector.bundle_sha256 == bundle_sha256


def _question(left: SignalVector, right: SignalVector) -> str:
    asked = [
        (
            sorted([*(signal.symbol for signal in one.weights), *(out.symbol for out in one.excluded)]),
            one.requested_top_n,
            one.requested_bottom_n,
        )
        for one in (left, right)
    ]
    return hashlib.sha256(repr(asked).encode()).hexdigest()
