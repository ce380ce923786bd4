"""Rejected requests as an operator sees them: found, put back, deleted.

Owns: the filter over the rejections stream, the way back from a rejection to its request.
Must not know: how they are shown.
Invariant: what is put back is the request as it came, under its own request id, or nothing; a request that has a
vector, or was put back before, is not put back again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts import ContractError, Rejection, RejectionCode, StreamNames
from contracts.codec import QUOTED, decode, decode_request, pairs_of, request_id_of
from contracts.entry_ids import EntryId
from worker.client.errors import RedriveRefused
from worker.transport.client import Client
from worker.transport.client import pairs_of as entry_pairs
from worker.transport.scripts import Redrive

Pairs = tuple[tuple[bytes, bytes], ...]

#: Entries read at once: bounds the memory, whatever the stream's length.
_PAGE = 500
#: Most fields that one script can be handed.
_FIELDS_MAX = 1000
#: Fields that a rejection keeps; one more may have been dropped.
_FIELDS_KEPT = 64
_CUT = re.compile(r"… \(\d+ bytes\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRequest:
    """One entry of the rejections stream."""

    entry_id: str
    rejection: Rejection

    @property
    def rejected_ms(self) -> int:
        """When it was published, by the server's clock, in epoch milliseconds."""
        return EntryId.parse(self.entry_id).ms

    @property
    def strategy(self) -> str:
        """The strategy that was asked, as far as the request named one."""
        return self.rejection.fields.get("strategy", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rejections to find; what is None does not matter."""

    code: RejectionCode | None = None
    strategy: str | None = None
    #: At least so old, in milliseconds.
    older_than_ms: int | None = None
    #: At most so old, in milliseconds.
    newer_than_ms: int | None = None
    #: Most of them.
    limit: int | None = None

    def matches(self, found: RejectedRequest) -> bool:
        """Whether code and strategy are those to find; age is a matter of where the stream is read."""
        if self.code is not None and found.rejection.code is not self.code:
            return False
        return self.strategy is None or found.strategy == self.strategy


class RedriveStatus(StrEnum):
    """What the server did with a request to be put back."""

    REDRIVEN = "redriven"
    #: Put back before; nothing was done.
    ALREADY = "already"
    #: The request id has a vector; nothing was done.
    ANSWERED = "answered"
    #: The request id was rejected again since; that rejection is the one to put back.
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveResult:
    """The server's answer."""

    status: RedriveStatus
    #: Entry on the requests stream, or of the outcome that is in the way; empty where it is not known.
    entry_id: str


class Rejections:
    """The rejections stream of one namespace; not safe to share between threads."""

    def __init__(self, client: Client, names: StreamNames, *, remembered_seconds: int) -> None:
        """Take a connection that does not block.

        Args:
            client: The connection.
            names: Of the namespace.
            remembered_seconds: How long it is remembered at least that a request was put back.
        """
        self._client, self._names, self._remembered_ms = client, names, remembered_seconds * 1000
        #: Entries that were no rejections, met since the start.
        self.unreadable = 0

    def found(self, wanted: Filter, *, newest_first: bool = False) -> Iterator[RejectedRequest]:
        """Yield the rejections that match, page by page.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        left = wanted.limit
        for entry_id, flat in self._entries(*self._bounds(wanted), newest_first=newest_first):
            if left == 0:
                return
            rejected = self._decoded(entry_id, flat)
            if rejected is not None and wanted.matches(rejected):
                left = None if left is None else left - 1
                yield rejected

    def find(self, wanted_id: str) -> RejectedRequest | None:
        """Return the rejection of a request id, or the one at an entry id; the newest where there are several.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        stream, entry = self._client.execute_command("HMGET", self._names.request(wanted_id), "stream", "entry")
        if stream == self._names.rejections.encode() and entry is not None and (found := self._at(entry.decode())):
            return found
        if re.fullmatch(r"\d+-\d+", wanted_id) and (found := self._at(wanted_id)):
            return found
        every = self.found(Filter(), newest_first=True)
        return next((rejected for rejected in every if rejected.rejection.request_id == wanted_id), None)

    def request_of(self, rejected: RejectedRequest) -> Pairs:
        """Return the fields that putting a request back would add: those that came, and its request id.

        Raises:
            RedriveRefused: They cannot be had as they came, or not under this request id.
            StreamUnavailable: The server is unavailable.
        """
        rejection = rejected.rejection
        requests = self._stream_of(rejection)
        rows = self._client.execute_command("XRANGE", requests, rejection.entry_id, rejection.entry_id, "COUNT", 1)
        pairs = entry_pairs(rows[0][1]) if rows else _kept(rejection)
        if len(pairs) > _FIELDS_MAX:
            raise RedriveRefused(f"the request has {len(pairs)} fields, at most {_FIELDS_MAX} can be put back")
        return _identified(pairs, rejection)

    def redrive(self, rejected: RejectedRequest) -> RedriveResult:
        """Put a request back under its own id and remove its rejection. Idempotent: repeated, it adds once.

        Raises:
            RedriveRefused: As `request_of`.
            StreamUnavailable: The server is unavailable, or its reply was lost; repeat it.
        """
        flat = [part for pair in self.request_of(rejected) for part in pair]
        status, detail = self._client.run(
            Redrive(
                requests=self._stream_of(rejected.rejection),
                rejections=self._names.rejections,
                request=self._names.request(rejected.rejection.request_id),
                rejection_id=rejected.entry_id,
                code=rejected.rejection.code.value,
                remember_ms=self._remembered_ms,
                fields=flat,
            )
        )
        return RedriveResult(status=RedriveStatus(status), entry_id=detail)

    def purge(self, entry_ids: Iterable[str]) -> int:
        """Delete rejections, and return how many were there; requests and remembered ids stay as they are.

        Raises:
            StreamUnavailable: The server is unavailable.
        """
        ids, deleted = list(entry_ids), 0
        for start in range(0, len(ids), _PAGE):
            deleted += int(self._client.xdel(self._names.rejections, *ids[start : start + _PAGE]))
        return deleted

    def _stream_of(self, rejection: Rejection) -> str:
        """Return the stream that a request came on, whatever partition this shell is set to."""
        return StreamNames(self._names.namespace, rejection.partition).requests

    def _bounds(self, wanted: Filter) -> tuple[str, str]:
        """Return the first and last entry id, by the server's clock."""
        now = int(self._client.server_time().timestamp() * 1000)
        first = "-" if wanted.newer_than_ms is None else str(max(0, now - wanted.newer_than_ms))
        last = "+" if wanted.older_than_ms is None else str(max(0, now - wanted.older_than_ms))
        return first, last

    def _entries(self, first: str, last: str, *, newest_first: bool) -> Iterator[tuple[str, Sequence[bytes]]]:
        command = "XREVRANGE" if newest_first else "XRANGE"
        start, end = (last, first) if newest_first else (first, last)
        while True:
            rows: list[Any] = self._client.execute_command(command, self._names.rejections, start, end, "COUNT", _PAGE)
            yield from ((row[0].decode(), row[1]) for row in rows)
            if len(rows) < _PAGE:
                return
            start = f"({rows[-1][0].decode()}"

    def _at(self, entry_id: str) -> RejectedRequest | None:
        rows = self._client.execute_command("XRANGE", self._names.rejections, entry_id, entry_id, "COUNT", 1)
        return self._decoded(entry_id, rows[0][1]) if rows else None

    def _decoded(self, entry_id: str, flat: Sequence[bytes]) -> RejectedRequest | None:
        try:
            return RejectedRequest(entry_id=entry_id, rejection=decode(Rejection, entry_pairs(flat)))
        except ContractError:
            self.unreadable += 1
            return None


def _kept(rejection: Rejection) -> Pairs:
    """Return the request's fields as the rejection keeps them, where those are surely the ones that came."""
    gone = f"request entry {rejection.entry_id} is no longer on its stream, and the rejection"
    if len(rejection.fields) >= _FIELDS_KEPT:
        raise RedriveRefused(f"{gone} keeps only the first {_FIELDS_KEPT} fields")
    for name, value in rejection.fields.items():
        for text in (name, value):
            # Values are cut by bytes: what is here as it came is no longer, whatever it ends with.
            if len(text.encode()) > QUOTED and _CUT.search(text):
                raise RedriveRefused(f"{gone} keeps only the beginning of field {name[:QUOTED]}")
            if "\\x" in text:
                raise RedriveRefused(f"{gone} keeps field {name[:QUOTED]} with bytes escaped, not as they came")
    pairs = tuple(pairs_of(rejection.fields))
    if rejection.code is RejectionCode.MALFORMED_REQUEST and _is_request(pairs, rejection):
        # Fields given twice are once in a rejection; what was refused for that would now be taken for a request.
        raise RedriveRefused(f"{gone} does not keep what was malformed about it")
    return pairs


def _is_request(pairs: Pairs, rejection: Rejection) -> bool:
    try:
        decode_request(pairs, rejection.entry_id)
    except ContractError:
        return False
    return True


def _identified(pairs: Pairs, rejection: Rejection) -> Pairs:
    """Return the fields with the request id among them, since a new entry has another id to fall back on."""
    if not any(name == b"request_id" for name, _ in pairs):
        return (*pairs, (b"request_id", rejection.request_id.encode()))
    if request_id_of(pairs, "") != rejection.request_id:
        raise RedriveRefused(
            f"its own request_id field cannot be kept: the rejection stands under {rejection.request_id}, "
            "and a new entry would stand under another id"
        )
    return pairs
