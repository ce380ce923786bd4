"""Differences: what two snapshots do not have in common.

Owns: the comparison of bars, the way from one snapshot to the other, and what was held back on it.
Must not know: tables on a screen.
Invariant: read-only; symbols whose hashes agree are not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from strategies.errors import DataError
from strategies.market.snapshot_files import read_quarantine
from strategies.market.snapshots import SnapshotRef, find_snapshot, read_symbol
from strategies.market.store import quarantine_dir
from strategies.market.symbol_bars import SymbolBars

#: Steps of a lineage that are followed.
MAX_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolDifference:
    """How one symbol's bars differ."""

    symbol: str
    #: `added`, `removed` or `changed`.
    kind: str
    #: Bars that only the second has, only the first has, and that both have with other values.
    added: int
    removed: int
    changed: int
    first: date
    last: date
    #: Largest change of a close that both have, as a fraction.
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Everything that differs, and how the second came from the first."""

    first_id: str
    second_id: str
    symbols: tuple[SymbolDifference, ...]
    same: int
    #: Lineage from the second back to the first, or as far as it is known.
    steps: tuple[dict[str, object], ...]
    #: Whether the second was made from the first.
    derived: bool


def differences(data_dir: Path, one: SnapshotRef, other: SnapshotRef) -> Differences:
    """Return how a second snapshot differs from a first.

    Raises:
        DataError: A file is not what its manifest states.
    """
    before, after = one.manifest.files, other.manifest.files
    found, same = [], 0
    for symbol in sorted({*before, *after}):
        if symbol in before and symbol in after and before[symbol].content_sha256 == after[symbol].content_sha256:
            same += 1
            continue
        first = read_symbol(one, symbol) if symbol in before else None
        second = read_symbol(other, symbol) if symbol in after else None
        difference = _difference(symbol, first, second)
        if difference is None:
            same += 1
        else:
            found.append(difference)
    steps = tuple(lineage(data_dir, other, until=one.id))
    derived = bool(steps) and steps[-1].get("parent") == one.id
    return Differences(
        first_id=one.id, second_id=other.id, symbols=tuple(found), same=same, steps=steps, derived=derived
    )


def lineage(data_dir: Path, snapshot: SnapshotRef, *, until: str = "") -> Iterator[dict[str, object]]:
    """Return the steps by which a snapshot was made, the last one first, back to an import or a given id."""
    at = snapshot
    for _ in range(MAX_STEPS):
        step = dict(at.manifest.lineage)
        if not step:
            return
        yield {"snapshot": at.id, "run_date": str(at.manifest.run_date), "revision": at.manifest.revision, **step}
        if step.get("parent") == until:
            return
        try:
            at = find_snapshot(data_dir, str(step.get("folder", "")))
            if at.id != step.get("parent"):
                at = find_snapshot(data_dir, str(step.get("parent", "")))
        except DataError:
            return  # it was removed; what is known was returned


def held_back(data_dir: Path, snapshot: SnapshotRef) -> list[dict[str, Any]]:
    """Return the rows that are no bars of a snapshot, of its own quarantine and of those of the ones it was made from.

    Each with `snapshot`, the folder of the one that held it back. A later snapshot may hold another row of its date.

    Raises:
        DataError: A file cannot be read.
    """
    names = [snapshot.path.name, *(str(step.get("folder", "")) for step in lineage(data_dir, snapshot))]
    return [
        {"snapshot": name} | row
        for name in dict.fromkeys(names)
        for row in read_quarantine(quarantine_dir(data_dir) / name)
    ]


def _alone(symbol: str, kind: str, bars: SymbolBars) -> SymbolDifference:
    count = len(bars.sessions)
    return SymbolDifference(
        symbol=symbol,
        kind=kind,
        added=count if kind == "added" else 0,
        removed=count if kind == "removed" else 0,
        changed=0,
        first=bars.sessions[0].astype(object),
        last=bars.sessions[-1].astype(object),
        largest=0.0,
    )


def _difference(symbol: str, first: SymbolBars | None, second: SymbolBars | None) -> SymbolDifference | None:
    if first is None or second is None:
        if second is not None:
            return _alone(symbol, "added", second)
        return None if first is None else _alone(symbol, "removed", first)
    common, at, to = np.intersect1d(first.sessions, second.sessions, return_indices=True)
    changed = np.zeros(len(common), bool)
    for name in {*first.columns, *second.columns}:
        nothing = np.full(len(common), np.nan)
        one = first.columns[name][at] if name in first.columns else nothing
        other = second.columns[name][to] if name in second.columns else nothing
        changed |= (one != other) & ~(np.isnan(one) & np.isnan(other))
    alone = np.concatenate((np.setdiff1d(first.sessions, common), np.setdiff1d(second.sessions, common)))
    days = np.concatenate((alone, common[changed]))
    if not len(days):
        return None
    moves = np.abs(second.columns["close"][to] / first.columns["close"][at] - 1)[changed]
    return SymbolDifference(
        symbol=symbol,
        kind="changed",
        added=len(second.sessions) - len(common),
        removed=len(first.sessions) - len(common),
        changed=int(changed.sum()),
        first=days.min().astype(object),
        last=days.max().astype(object),
        largest=float(moves.max()) if len(moves) else 0.0,
    )
