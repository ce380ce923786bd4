"""The store: folders of snapshots and their quarantine, and how a new one appears.

Owns: the lock of a data directory, hidden folders, revisions of a run date, the renames that make a snapshot visible.
Must not know: how bars are read or judged.
Invariant: a snapshot that can be seen is complete and never changes; a run date that is written again gets a revision.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from strategies.errors import DataError
from strategies.files import sync
from strategies.market.manifest import NAME, Manifest
from strategies.market.snapshots import adjusted_dir, last_of_day


def quarantine_dir(data_dir: Path) -> Path:
    """Return the folder below which quarantined rows are, one folder a snapshot."""
    return data_dir / "quarantine"


def placed(data_dir: Path, manifest: Manifest) -> tuple[Manifest, bool]:
    """Return the manifest with the revision it must have, and whether its snapshot is new.

    Raises:
        DataError: A folder without a manifest is in the way.
    """
    target = adjusted_dir(data_dir) / manifest.run_date.isoformat()
    if target.exists() and not (target / NAME).is_file():
        raise DataError(f"{target}: exists without a manifest, so it is no snapshot of this command; remove it")
    last = last_of_day(data_dir, manifest.run_date)
    if last is None:
        return manifest, True
    if _same(last.manifest, manifest):
        return last.manifest, False
    lineage = dict(manifest.lineage) or {"kind": "revision", "parent": last.id, "folder": last.path.name}
    return replace(manifest, revision=last.manifest.revision + 1, lineage=lineage), True


def publish(scratch: Path, data_dir: Path, manifest: Manifest) -> Path:
    """Rename the finished and synced folders into place; return the snapshot's folder."""
    target, quarantine = adjusted_dir(data_dir) / manifest.folder, quarantine_dir(data_dir) / manifest.folder
    for parent in (target.parent, quarantine.parent):
        parent.mkdir(exist_ok=True)
    if quarantine.exists():
        # Without its snapshot it was left by an import that died between the two renames.
        quarantine.rename(scratch / "abandoned")
    (scratch / "quarantine").rename(quarantine)
    sync(quarantine.parent)
    (scratch / "adjusted").rename(target)
    sync(target.parent)
    return target


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Keep a second import out of the same data directory."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / ".import.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{data_dir}: another import is running") from error
        yield


@contextmanager
def scratch_folder(data_dir: Path) -> Iterator[Path]:
    """Give a hidden folder on the same file system; remove it, and what dead imports left, at the end."""
    scratch = Path(mkdtemp(prefix=".import-", dir=data_dir))
    try:
        yield scratch
    finally:
        for left in data_dir.glob(".import-*"):
            shutil.rmtree(left, ignore_errors=True)


def _same(one: Manifest, other: Manifest) -> bool:
    """Return whether two snapshots hold the same bars, and passed and failed the same checks."""
    verdicts = [[check.name for check in manifest.failed] for manifest in (one, other)]
    # Snapshots of earlier releases state no checks; a worker runs them when it loads one.
    known = not one.checks or verdicts[0] == verdicts[1]
    return one.snapshot_id == other.snapshot_id and known and dict(one.unsettled) == dict(other.unsettled)
