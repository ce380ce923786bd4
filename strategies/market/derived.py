"""Derived snapshots: a new one that shares the unchanged files of the one it was made from.

Owns: hard links, the part with added bars, files that are written anew, the lineage.
Must not know: formats of vendors, how rows are judged.
Invariant: nothing of the snapshot before is changed; the new one is complete without it.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from strategies.errors import DataError
from strategies.files import sync, write_synced
from strategies.market.adjustment import adjust
from strategies.market.bars import BoolArray, FloatArray, SessionArray
from strategies.market.checks import Closes, run_checks
from strategies.market.manifest import (
    NAME,
    CheckResult,
    Manifest,
    Part,
    SymbolFile,
    content_sha256,
    encode_manifest,
    snapshot_id,
)
from strategies.market.parts import RECENT, RECENT_BARS, ManyBars, followed, gathered, without, write_many
from strategies.market.readers import RawBars
from strategies.market.rules import stated
from strategies.market.snapshot_files import write_bars, write_quarantine, write_refused
from strategies.market.snapshots import SnapshotRef, adjusted_dir, read_symbol
from strategies.market.store import placed, publish
from strategies.market.symbols import file_stem
from strategies.market.verdicts import Settled

#: Parts of one snapshot; then its bars are imported again.
MAX_PARTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a derived snapshot changes."""

    #: `append` or `correct`.
    kind: str
    #: Symbol to sessions and columns that are added.
    added: Mapping[str, tuple[SessionArray, dict[str, FloatArray]]] = field(default_factory=dict)
    #: Symbol to what its earlier prices are multiplied by.
    restated: Mapping[str, float] = field(default_factory=dict)
    #: Symbol to all of its bars, written anew.
    replaced: Mapping[str, tuple[SessionArray, dict[str, FloatArray]]] = field(default_factory=dict)
    #: Symbol to what the vendor wrote of its replaced bars.
    raw: Mapping[str, Mapping[str, FloatArray]] = field(default_factory=dict)
    #: Symbol to further sessions at which an unsettled level began.
    unsettled: Mapping[str, tuple[date, ...]] = field(default_factory=dict)
    held: Sequence[tuple[RawBars, dict[str, BoolArray]]] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    #: What the lineage keeps beside parent and kind.
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedReport:
    """What an append or a correction did."""

    path: Path
    snapshot_id: str
    parent: str
    run_date: date
    revision: int
    created: bool
    #: Bars added or replaced, and symbols whose history was restated.
    bars: int
    symbols: int
    restated: tuple[str, ...]
    first: date
    last: date
    unchanged: int
    quarantined: int
    reasons: Mapping[str, int]
    refused: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def served(self) -> bool:
        """Return whether a worker loads the snapshot."""
        return not self.failed


def write_derived(
    scratch: Path, data_dir: Path, base: SnapshotRef, recent: ManyBars, change: Change, settled: Settled
) -> DerivedReport:
    """Write a snapshot that differs from its base by a change, and return what was done.

    Raises:
        DataError: The base has too many parts, or its files cannot be read.
    """
    if len(base.manifest.parts) >= MAX_PARTS:
        raise DataError(f"{base.path}: has {MAX_PARTS} appended parts, import its bars again")
    folder = scratch / "adjusted"
    folder.mkdir()
    (scratch / "quarantine").mkdir()
    files = dict(base.manifest.files)
    raw = dict(change.raw)
    anew: dict[str, tuple[SessionArray, dict[str, FloatArray]]] = {}
    for symbol in sorted(change.restated.keys() & files.keys()):
        sessions, columns, raw[symbol] = _restated(base, symbol, change.restated[symbol])
        anew[symbol] = sessions, columns
    anew |= change.replaced
    _link(base, folder, {file_stem(symbol) for symbol in anew})
    for symbol, (sessions, columns) in anew.items():
        files[symbol] = write_bars(folder, symbol, sessions, columns, raw.get(symbol, {}))
    parts = base.manifest.parts
    added = gathered((symbol, sessions, columns) for symbol, (sessions, columns) in change.added.items())
    if change.added:
        parts = (*parts, _write_part(folder, len(parts) + 1, added))
        for symbol, (sessions, columns) in change.added.items():
            files[symbol] = _followed(files.get(symbol), sessions, columns)
    last = _merged_recent(recent, added, anew)
    digest = write_many(folder / RECENT, last, synced=False)
    manifest = _manifest(base, change, settled, files, parts, last, digest)
    tally = _write_held(scratch / "quarantine", change)
    manifest, created = placed(data_dir, manifest)
    if created:
        write_synced(folder / NAME, encode_manifest(manifest))
        for one in (folder, scratch / "quarantine"):
            sync(one)
        publish(scratch, data_dir, manifest)
    path = adjusted_dir(data_dir) / manifest.folder
    return _report(path, base, change, manifest, tally, created=created)


def _link(base: SnapshotRef, folder: Path, left_out: set[str]) -> None:
    """Share the files of a snapshot; where links are impossible its files are copied."""
    for entry in os.scandir(base.path):
        stem, point, _ = entry.name.rpartition(".parquet")
        if not point or stem in left_out:
            continue
        target = folder / entry.name
        try:
            os.link(entry.path, target)
        except OSError:
            write_synced(target, Path(entry.path).read_bytes())


def _restated(
    base: SnapshotRef, symbol: str, step: float
) -> tuple[SessionArray, dict[str, FloatArray], dict[str, FloatArray]]:
    """Return a symbol's bars adjusted by one more action, made of what was paid, and that as well."""
    bars = read_symbol(base, symbol, raw=True)
    paid, factor = bars.as_paid(), bars.columns["factor"] * step
    columns = bars.columns | adjust(paid, factor) | {"factor": factor}
    return bars.sessions, columns, bars.raw | paid


def _write_part(folder: Path, number: int, bars: ManyBars) -> Part:
    name = f"part-{number:04d}.parquet"
    return Part(name=name, rows=len(bars.sessions), file_sha256=write_many(folder / name, bars))


def _followed(file: SymbolFile | None, sessions: SessionArray, columns: Mapping[str, FloatArray]) -> SymbolFile:
    """Return what the manifest states of a symbol after its added bars."""
    more = content_sha256(sessions, columns)
    first, last = sessions[0].astype(object), sessions[-1].astype(object)
    if file is None:
        nothing = hashlib.sha256(b"").hexdigest()
        return SymbolFile(
            rows=len(sessions), first=first, last=last, content_sha256=more, file_sha256=nothing, file_rows=0
        )
    return SymbolFile(
        rows=file.rows + len(sessions),
        first=file.first,
        last=last,
        # Of what was there and what came, so that nothing has to be read again.
        content_sha256=hashlib.sha256(f"{file.content_sha256} {more}".encode()).hexdigest(),
        file_sha256=file.file_sha256,
        file_rows=file.own_rows,
    )


def _merged_recent(
    recent: ManyBars, added: ManyBars, anew: Mapping[str, tuple[SessionArray, dict[str, FloatArray]]]
) -> ManyBars:
    """Return the last bars of all symbols after the change."""
    if anew:
        recent = followed(without(recent, anew), gathered((symbol, *anew[symbol]) for symbol in anew), RECENT_BARS)
    return followed(recent, added, RECENT_BARS)


def _manifest(
    base: SnapshotRef,
    change: Change,
    settled: Settled,
    files: dict[str, SymbolFile],
    parts: tuple[Part, ...],
    recent: ManyBars,
    digest: str,
) -> Manifest:
    before = base.manifest
    vwap = any("vwap" in columns for _, columns in (*change.added.values(), *change.replaced.values()))
    unsettled = dict(before.unsettled)
    for symbol in change.replaced:
        unsettled.pop(symbol, None)
    for symbol, days in change.unsettled.items():
        unsettled[symbol] = (*unsettled.get(symbol, ()), *days)
    quarantined = Counter(dict(before.quarantined))
    for rows, flags in change.held:
        quarantined[rows.symbol] += int(np.logical_or.reduce(list(flags.values())).sum())
    files = dict(sorted(files.items()))
    return replace(
        before,
        snapshot_id=snapshot_id(before.calendar, files),
        run_date=settled.run_date,
        revision=1,
        has_vwap=before.has_vwap or vwap,
        quarantined=MappingProxyType(dict(quarantined)),
        files=MappingProxyType(files),
        parts=parts,
        checks=_checked(before, change, settled, recent),
        limits=stated(settled.rules),
        unsettled=MappingProxyType(unsettled),
        origin={**before.origin, "recent_sha256": digest},
        lineage={
            "kind": change.kind,
            "parent": base.id,
            "folder": base.path.name,
            "symbols": len(change.added) + len(change.replaced),
            "restated": sorted({*change.restated, *change.replaced}),
            **change.facts,
        },
    )


def _checked(before: Manifest, change: Change, settled: Settled, recent: ManyBars) -> dict[str, CheckResult]:
    """Return what the checks find in the last sessions; what failed in the history before stays failed."""
    found = run_checks(_last_closes(recent, settled), settled.rules)
    if change.kind == "append":
        for name in ("volume_shifted", "cross_section_moved"):
            earlier = before.checks.get(name)
            if earlier is not None and not earlier.passed and found[name].passed:
                found[name] = earlier
    return found


def _last_closes(recent: ManyBars, settled: Settled) -> Closes:
    """Return the closes and volumes of the last sessions."""
    first, last = recent.sessions.min().astype(object), recent.sessions.max().astype(object)
    sessions = settled.calendar.sessions_between(first, last)[-RECENT_BARS:]
    at = np.searchsorted(sessions, recent.sessions)
    kept = recent.sessions >= sessions[0]
    rows = np.repeat(np.arange(len(recent.symbols)), np.diff(recent.bounds))[kept]
    values = np.full((2, len(recent.symbols), len(sessions)), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for place, name in enumerate(("close", "volume")):
            values[place, rows, at[kept]] = recent.columns[name][kept].astype(np.float32)
    return Closes(symbols=recent.symbols, sessions=sessions, close=values[0], volume=values[1])


def _write_held(folder: Path, change: Change) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for rows, flags in change.held:
        for reason, flag in flags.items():
            reasons[reason] += int(flag.sum())
        write_quarantine(folder, rows, flags)
    if change.refused:
        write_refused(folder, change.refused)
    return reasons


def _report(
    path: Path, base: SnapshotRef, change: Change, manifest: Manifest, reasons: Counter[str], *, created: bool
) -> DerivedReport:
    touched = {**change.replaced, **change.added}
    days = [session for sessions, _ in touched.values() for session in (sessions[0], sessions[-1])]
    return DerivedReport(
        path=path,
        snapshot_id=manifest.snapshot_id,
        parent=base.id,
        run_date=manifest.run_date,
        revision=manifest.revision,
        created=created,
        bars=sum(len(sessions) for sessions, _ in change.added.values()),
        symbols=len(touched),
        restated=tuple(sorted(change.restated)),
        first=min(days).astype(object) if days else manifest.first,
        last=max(days).astype(object) if days else manifest.last,
        unchanged=int(change.facts.get("unchanged", 0)),
        quarantined=sum(int(np.logical_or.reduce(list(flags.values())).sum()) for _, flags in change.held),
        reasons=MappingProxyType(dict(reasons)),
        refused=MappingProxyType(dict(change.refused)),
        failed={check.name: check.detail for check in manifest.failed},
    )
