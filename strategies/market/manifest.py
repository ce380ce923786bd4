"""The manifest of a snapshot: what it holds, and the hash that names it.

Owns: the manifest's JSON, the content hash of bars, the snapshot id.
Must not know: where snapshots lie, how bars are adjusted or judged, panels.
Invariant: the id depends on the calendar and the bars' values alone; never on the Parquet writer, the run date or
where the files came from.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from strategies.errors import DataError
from strategies.market.bars import FIELDS, FloatArray, SessionArray
from strategies.market.symbols import checked_symbol

NAME = "manifest.json"
FORMAT = 1
#: Largest manifest that is read, in bytes (about 300 a symbol).
MAX_BYTES = 64 * 1024**2
#: Columns of one symbol's file that hold numbers, in the order of the file and of the hash; vwap where known.
COLUMNS = (*FIELDS, "vwap", "factor", "halted")
#: Those that only some files have.
OPTIONAL_COLUMNS = ("vwap", "halted")
#: Fields that a file keeps as the vendor wrote them, under a name with the prefix, where they were adjusted, and its
#: columns of corporate actions. They are no bars of their own: a snapshot's id is that of the adjusted ones.
RAW = ("open", "high", "low", "close", "volume", "vwap", "adj_close", "dividend", "split", "preclose")
RAW_PREFIX = "raw_"


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolFile:
    """One symbol's file in a snapshot."""

    rows: int
    #: First and last session with a bar.
    first: date
    last: date
    #: Hash of the bars' values.
    content_sha256: str
    #: Hash of the file's bytes; of no bytes where all bars are in parts.
    file_sha256: str
    #: Bars in the file itself; the others are in parts. None: all of them.
    file_rows: int | None = None

    @property
    def own_rows(self) -> int:
        """Return the number of bars in the file itself."""
        return self.rows if self.file_rows is None else self.file_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file with the appended bars of many symbols."""

    name: str
    rows: int
    #: Hash of the file's bytes.
    file_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check of a snapshot found."""

    name: str
    #: Of the rule by which it was checked.
    version: int
    passed: bool
    #: The limit it was held to; 0: the rule has none.
    limit: float
    #: What was found, in one sentence.
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot holds."""

    snapshot_id: str
    #: The day of the import, which names the snapshot's folder.
    run_date: date
    #: Code of the exchange calendar whose sessions the bars stand on.
    calendar: str
    #: What raw prices were adjusted by: `adj_close`, `factor` or `none`.
    adjustment: str
    #: Whether at least one bar knows its vwap.
    has_vwap: bool
    #: The bounds the rows were judged by, as they were asked for.
    options: Mapping[str, Any]
    #: Rows in quarantine, by symbol.
    quarantined: Mapping[str, int]
    #: Symbol to its file, ascending.
    files: Mapping[str, SymbolFile]
    #: 1, or more where the run date was imported before with other bars.
    revision: int = 1
    #: Name to what each check of the snapshot found; empty in snapshots of earlier releases.
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    #: Rule of rows to its version, of those that every bar was judged by; empty in snapshots of earlier releases.
    rules: Mapping[str, int] = field(default_factory=dict)
    #: Limits of all rules.
    limits: Mapping[str, float] = field(default_factory=dict)
    #: Symbol to the sessions at which a level began that looks like a split nobody has settled.
    unsettled: Mapping[str, tuple[date, ...]] = field(default_factory=dict)
    #: Where the bars came from: vendor, how dates were read, how many symbols were adjusted by what.
    origin: Mapping[str, Any] = field(default_factory=dict)
    #: Snapshot that this one was made from, how and why; empty: from raw bars alone.
    lineage: Mapping[str, Any] = field(default_factory=dict)
    #: What the calendar is made of, where `exchange_calendars` does not know it.
    calendar_definition: Mapping[str, Any] | None = None
    #: Appended bars, oldest first.
    parts: tuple[Part, ...] = ()

    @property
    def folder(self) -> str:
        """Return the name of the snapshot's folder."""
        return self.run_date.isoformat() if self.revision == 1 else f"{self.run_date}.{self.revision}"

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Return the checks that the snapshot did not pass."""
        return tuple(check for check in self.checks.values() if not check.passed)

    @property
    def confirmed_moves(self) -> frozenset[tuple[str, date]]:
        """Return (symbol, session) of the moves that somebody had settled when the bars were imported."""
        pairs = (str(text).rpartition(":") for text in self.options.get("confirmed_moves", ()))
        return frozenset((symbol, date.fromisoformat(day)) for symbol, _, day in pairs)

    @property
    def confirmed_sessions(self) -> frozenset[date]:
        """Return the sessions that somebody had settled when the bars were imported."""
        return frozenset(date.fromisoformat(str(day)) for day in self.options.get("confirmed_sessions", ()))

    @property
    def first(self) -> date:
        """Return the first session that any symbol has a bar of."""
        return min(file.first for file in self.files.values())

    @property
    def last(self) -> date:
        """Return the last session that any symbol has a bar of."""
        return max(file.last for file in self.files.values())

    @property
    def rows(self) -> int:
        """Return the number of bars of all symbols."""
        return sum(file.rows for file in self.files.values())


def content_sha256(sessions: SessionArray, columns: Mapping[str, FloatArray]) -> str:
    """Return the hash of one symbol's bars; every NaN counts as the same NaN, and -0 as 0.

    Args:
        sessions: `[bars]`, ascending.
        columns: Column to values `[bars]`; a column without any number counts as absent.
    """
    digest = hashlib.sha256(f"bars {FORMAT} {len(sessions)}".encode())
    digest.update(sessions.astype("datetime64[D]").astype("<i8").tobytes())
    for name in COLUMNS:
        if name not in columns:
            continue
        unknown = np.isnan(columns[name])
        if not unknown.all():
            values = np.where(unknown, np.nan, columns[name]) + 0.0
            digest.update(name.encode() + values.astype("<f8").tobytes())
    return digest.hexdigest()


def snapshot_id(calendar: str, files: Mapping[str, SymbolFile]) -> str:
    """Return the hash of all symbols' bars on one calendar."""
    digest = hashlib.sha256(f"snapshot {FORMAT} {calendar}\n".encode())
    for symbol in sorted(files):
        file = files[symbol]
        digest.update(f"{symbol} {file.content_sha256} {file.rows} {file.first} {file.last}\n".encode())
    return digest.hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, one symbol a line."""
    fields = {name: getattr(manifest, name) for name in Manifest.__slots__ if name != "files"}
    fields |= {
        name: dict(getattr(manifest, name))
        for name in ("options", "quarantined", "rules", "limits", "origin", "lineage")
    }
    fields |= {"format": FORMAT, "unsettled": {symbol: list(days) for symbol, days in manifest.unsettled.items()}}
    fields["parts"] = [asdict(part) for part in manifest.parts]
    fields["checks"] = {name: asdict(check) for name, check in manifest.checks.items()}
    head = json.dumps(fields, indent=1, sort_keys=True, default=str)
    lines = [
        f"  {json.dumps(symbol)}: {json.dumps(_fields_of(file), sort_keys=True, default=date.isoformat)}"
        for symbol, file in sorted(manifest.files.items())
    ]
    files = ",\n".join(lines)
    return f'{head[:-2]},\n "files": {{\n{files}\n }}\n}}\n'.encode()


def _fields_of(file: SymbolFile) -> dict[str, Any]:
    fields = {name: getattr(file, name) for name in SymbolFile.__slots__}
    if file.file_rows is None:
        del fields["file_rows"]
    return fields


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a snapshot's folder.

    Raises:
        DataError: It is absent, unreadable, of another format, or contradicts itself.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has {path.stat().st_size} bytes, at most {MAX_BYTES} are read")
        manifest = _decode(json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(f"{path}: is no manifest of a snapshot: {type(error).__name__}: {str(error)[:160]}") from error
    found = snapshot_id(manifest.calendar, manifest.files)
    if found != manifest.snapshot_id:
        raise DataError(f"{path}: states snapshot id {manifest.snapshot_id}, its files make {found}")
    return manifest


def _decode(fields: dict[str, Any], where: str) -> Manifest:
    if fields["format"] != FORMAT:
        raise DataError(f"{where}: has format {fields['format']!r}, {FORMAT} is read")
    if not fields["files"]:
        raise ValueError("no files")
    return Manifest(
        snapshot_id=_digest(fields["snapshot_id"]),
        run_date=date.fromisoformat(fields["run_date"]),
        calendar=str(fields["calendar"]),
        adjustment=str(fields["adjustment"]),
        has_vwap=bool(fields["has_vwap"]),
        options=dict(fields["options"]),
        quarantined={str(symbol): int(rows) for symbol, rows in fields["quarantined"].items()},
        # Symbols become paths: a manifest from elsewhere must not point outside its folder.
        files={checked_symbol(symbol, where): _decode_file(file) for symbol, file in sorted(fields["files"].items())},
        revision=int(fields.get("revision", 1)),
        checks={name: CheckResult(**check) for name, check in fields.get("checks", {}).items()},
        rules={str(name): int(version) for name, version in fields.get("rules", {}).items()},
        limits={name: float(limit) for name, limit in fields.get("limits", {}).items()},
        unsettled={
            symbol: tuple(date.fromisoformat(day) for day in days)
            for symbol, days in fields.get("unsettled", {}).items()
        },
        origin=dict(fields.get("origin", {})),
        lineage=dict(fields.get("lineage", {})),
        calendar_definition=fields.get("calendar_definition"),
        parts=tuple(_decode_part(part) for part in fields.get("parts", ())),
    )


def _decode_file(fields: dict[str, Any]) -> SymbolFile:
    return SymbolFile(
        rows=int(fields["rows"]),
        first=date.fromisoformat(fields["first"]),
        last=date.fromisoformat(fields["last"]),
        content_sha256=_digest(fields["content_sha256"]),
        file_sha256=_digest(fields["file_sha256"]),
        file_rows=None if fields.get("file_rows") is None else int(fields["file_rows"]),
    )


def _decode_part(fields: dict[str, Any]) -> Part:
    if not re.fullmatch(r"part-[0-9]{4}\.parquet", fields["name"]):
        raise ValueError(f"{fields['name'][:80]!r} is no name of a part")
    return Part(name=fields["name"], rows=int(fields["rows"]), file_sha256=_digest(fields["file_sha256"]))


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text[:80]!r} is no SHA-256")
    return text
