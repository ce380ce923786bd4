"""Files that are still there after a power cut.

Owns: writing through to the disk.
Must not know: what the files hold, or when they are renamed into place.
Invariant: what a caller renames after these calls is never found empty or half written.
"""

import os
from pathlib import Path


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and return when the disk has it; its name lasts once its folder is synced too."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Return when the disk has what was written to a file, or which names a folder holds."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
