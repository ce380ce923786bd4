"""Outcomes that outlive their streams: Parquet partitions by day.

Owns: `archive/<namespace>/<stream>/<YYYY-MM-DD>.parquet` below the data directory: its columns, writing, reading.
Must not know: what outcomes mean, when streams are cut.
Invariant: streams are only read. A partition appears whole or not at all, holds every entry once, and an entry is in
the partition of the UTC day of its id, which is the server's time.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import structlog
from pyarrow import parquet
from pydantic import BaseModel

from contracts import ContractError
from contracts.codec import decode
from contracts.entry_ids import EntryId
from strategies.files import sync
from worker.embedded.files import take_lock
from worker.errors import WorkerError
from worker.transport.client import Client, pairs_of

#: Entries read from the server, and rows written, at once: bounds the memory of both.
PAGE, ROWS = 1000, 5000
_OTHER = "other"
#: The entry id, the server's time of it, and the fields that the contract does not have, as JSON.
_OWN = {"entry_id": pa.string(), "added_at": pa.timestamp("ms", tz="UTC"), _OTHER: pa.string()}

_log = structlog.get_logger()


class ArchiveUnusable(WorkerError):
    """A partition that cannot be read or written, or an archive that another process is writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedEntry:
    """One entry as the archive keeps it: fields of flat text, as on the stream."""

    entry_id: str
    fields: Mapping[str, str]

    @property
    def day(self) -> date:
        """UTC day on which the server added it."""
        return day_of(self.entry_id)

    @property
    def pairs(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields as the stream would return them."""
        return tuple((name.encode(), text.encode()) for name, text in self.fields.items())


@dataclass(slots=True, kw_only=True)
class Archived:
    """What one run did to one stream's archive."""

    stream: str
    #: Entries read from the stream.
    read: int = 0
    #: Entries that were not in the archive before.
    added: int = 0
    #: Entries that are no outcome by the contract, left on the stream alone.
    refused: int = 0
    #: Partitions written.
    days: int = 0


def day_of(entry_id: str) -> date:
    """Return the UTC day of an entry id."""
    return datetime.fromtimestamp(EntryId.parse(entry_id).ms / 1000, UTC).date()


class Archive:
    """The partitions of one stream."""

    def __init__(self, data_dir: Path, stream: str, model: type[BaseModel]) -> None:
        """Take the stream's key, `<namespace>:<stream>`, and the contract of its entries."""
        namespace, _, name = stream.rpartition(":")
        self.stream, self.model = stream, model
        self._folder = data_dir / "archive" / namespace / name

    def days(self) -> list[date]:
        """Return the days that have a partition, ascending."""
        found = self._folder.glob("????-??-??.parquet") if self._folder.is_dir() else ()
        return sorted(date.fromisoformat(path.stem) for path in found)

    def entry_ids(self, day: date) -> list[str]:
        """Return the entry ids of a day, in the order of the stream.

        Raises:
            ArchiveUnusable: The partition cannot be read.
        """
        path = self._path(day)
        if not path.is_file():
            return []
        with _readable(path):
            ids: list[str] = parquet.read_table(path, columns=["entry_id"])["entry_id"].to_pylist()
        return ids

    def headers(self, day: date, names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield id and these fields of every entry of a day, in the order of the stream; absent ones are left out.

        Raises:
            ArchiveUnusable: The partition cannot be read.
        """
        path = self._path(day)
        if not path.is_file():
            return
        with _readable(path), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=["entry_id", *names]):
                for row in batch.to_pylist():
                    yield row["entry_id"], {name: row[name] for name in names if row.get(name) is not None}

    def entries(self, day: date, ids: Iterable[str]) -> Iterator[ArchivedEntry]:
        """Yield these entries of a day, in the order of the stream; what is not there is left out.

        Raises:
            ArchiveUnusable: The partition cannot be read.
        """
        yield from self._where(day, ("entry_id", "in", sorted(set(ids))))

    def answer_to(self, request_id: str) -> ArchivedEntry | None:
        """Return the outcome of a request id, the latest where there are several.

        Raises:
            ArchiveUnusable: A partition cannot be read.
        """
        found = self.answers_to(request_id)
        return found[-1] if found else None

    def answers_to(self, request_id: str) -> list[ArchivedEntry]:
        """Return all that was published for a request id on the last day that holds any of it.

        Raises:
            ArchiveUnusable: A partition cannot be read.
        """
        for day in reversed(self.days()):
            found = list(self._where(day, ("request_id", "=", request_id)))
            if found:
                return found
        return []

    def extend(self, entries: Iterable[ArchivedEntry], report: Archived) -> None:
        """Add entries in the order of the stream; those that are there already are left out.

        Raises:
            ArchiveUnusable: A partition cannot be read or written, or another process is writing.
        """
        with self._alone():
            for day, of_day in groupby(entries, key=lambda entry: entry.day):
                known = set(self.entry_ids(day))
                added = self._extend_day(day, (entry for entry in of_day if entry.entry_id not in known))
                report.added += added
                report.days += bool(added)

    def _extend_day(self, day: date, fresh: Iterator[ArchivedEntry]) -> int:
        first = list(islice(fresh, ROWS))
        if not first:
            return 0
        path, temporary = self._path(day), self._folder / f".{day}.{os.getpid()}.tmp"
        with _readable(path):
            schema = self._schema(parquet.read_schema(path) if path.is_file() else None)
            try:
                added = self._write(temporary, schema, path, first, fresh)
                sync(temporary)
                temporary.replace(path)
                sync(self._folder)
            finally:
                temporary.unlink(missing_ok=True)
        return added

    def _write(
        self, temporary: Path, schema: pa.Schema, before: Path, rows: list[ArchivedEntry], more: Iterator[ArchivedEntry]
    ) -> int:
        """Copy what is there, then add; a day is never in memory as a whole."""
        added = 0
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            if before.is_file():
                with parquet.ParquetFile(before) as file:
                    for batch in file.iter_batches(ROWS):
                        writer.write_table(_widened(pa.Table.from_batches([batch]), schema))
            while rows:
                writer.write_table(pa.Table.from_pylist([_row(entry, schema) for entry in rows], schema=schema))
                added += len(rows)
                rows = list(islice(more, ROWS))
        return added

    def _schema(self, before: pa.Schema | None) -> pa.Schema:
        """Return today's columns, and those of an older contract that the partition already has."""
        columns = {"entry_id": _OWN["entry_id"], "added_at": _OWN["added_at"]}
        columns |= dict.fromkeys(self.model.model_fields, pa.string())
        columns |= {} if before is None else dict(zip(before.names, before.types, strict=True))
        return pa.schema(list((columns | {_OTHER: _OWN[_OTHER]}).items()))

    def _where(self, day: date, condition: tuple[str, str, object]) -> Iterator[ArchivedEntry]:
        path = self._path(day)
        if not path.is_file():
            return
        with _readable(path):
            rows = parquet.read_table(path, filters=[condition]).to_pylist()
        yield from map(_entry, rows)

    def _path(self, day: date) -> Path:
        return self._folder / f"{day}.parquet"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(self._folder / ".lock")
        except OSError as error:
            raise ArchiveUnusable(f"{self._folder} cannot be written: {error.strerror}") from error
        if lock is None:
            raise ArchiveUnusable(f"{self._folder} is being written by another process")
        try:
            yield
        finally:
            lock.release()


def archive_stream(client: Client, archive: Archive, *, whole: bool = False) -> Archived:
    """Add what a stream holds to its archive.

    Args:
        client: A connection that does not block.
        archive: Of the stream.
        whole: Look at every entry of the stream. Else at those from the last archived day on: entries are added to a
            stream in the order of their ids, and to the archive in the order of the stream.

    Raises:
        StreamUnavailable: The server is unavailable; what was added stays, and the next run continues from there.
        ArchiveUnusable: A partition cannot be read or written, or another process is writing.
    """
    report = Archived(stream=archive.stream)
    days = archive.days()
    since = "-" if whole or not days else _first_id(days[-1])
    archive.extend(_outcomes(stream_entries(client, archive.stream, since), archive.model, report), report)
    return report


def stream_entries(
    client: Client, stream: str, first: str = "-", last: str = "+"
) -> Iterator[tuple[str, tuple[tuple[bytes, bytes], ...]]]:
    """Yield id and fields of every entry of a stream between two ids, page by page.

    Raises:
        StreamUnavailable: The server is unavailable.
    """
    while True:
        rows = client.execute_command("XRANGE", stream, first, last, "COUNT", PAGE)
        for raw_id, flat in rows:
            yield raw_id.decode(), pairs_of(flat)
        if len(rows) < PAGE:
            return
        first = f"({rows[-1][0].decode()}"


def ids_between(first: date, last: date) -> tuple[str, str]:
    """Return the least and the greatest entry id of a range of UTC days, both included."""
    return _first_id(first), f"{int(_first_id(last + timedelta(days=1)).partition('-')[0]) - 1}"


def _first_id(day: date) -> str:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return f"{max(0, int(midnight.timestamp() * 1000))}-0"


def _outcomes(
    rows: Iterable[tuple[str, tuple[tuple[bytes, bytes], ...]]], model: type[BaseModel], report: Archived
) -> Iterator[ArchivedEntry]:
    for entry_id, pairs in rows:
        report.read += 1
        try:
            decode(model, pairs)
            day_of(entry_id)
        except (ContractError, ValueError, OverflowError) as error:
            # By hand one may add anything, under any id: one beyond the year 9999 belongs to no day.
            report.refused += 1
            _log.warning("entry_not_archived", stream=report.stream, entry=entry_id, reason=str(error)[:200])
            continue
        yield ArchivedEntry(entry_id=entry_id, fields={name.decode(): text.decode() for name, text in pairs})


def _row(entry: ArchivedEntry, schema: pa.Schema) -> dict[str, object]:
    own = {"entry_id": entry.entry_id, "added_at": EntryId.parse(entry.entry_id).ms}
    known = {name: text for name, text in entry.fields.items() if name in schema.names and name not in _OWN}
    other = {name: text for name, text in entry.fields.items() if name not in known}
    return known | own | {_OTHER: json.dumps(other) if other else None}


def _entry(row: dict[str, object]) -> ArchivedEntry:
    fields = {name: str(text) for name, text in row.items() if name not in _OWN and text is not None}
    return ArchivedEntry(entry_id=str(row["entry_id"]), fields=fields | json.loads(str(row[_OTHER] or "{}")))


def _widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.column_names]
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    return table.select(schema.names).cast(schema)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ArchiveUnusable(f"{path}: {(str(error).splitlines() or ['?'])[0][:200]}") from error
