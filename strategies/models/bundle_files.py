"""Bytes of a bundle's files, read and written with every check.

Owns: size limits, refusal of links and of anything that is no plain file, digests, the write that appears whole or not.
Must not know: what the bytes mean.
Invariant: a file is opened once; what was measured and hashed is what the caller gets.
"""

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from strategies.errors import BundleExists, BundleNotFound, BundleUnavailable, DigestMismatch, MalformedBundle
from strategies.files import sync, write_synced

#: Largest file of a bundle that is read, in bytes.
SIZE_LIMITS = {
    "bundle.json": 16 * 1024**2,
    "model.txt": 512 * 1024**2,
    "golden.parquet": 64 * 1024**2,
    "reference.parquet": 64 * 1024**2,
}


def digest(content: bytes) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def read_limited(path: Path, limit_bytes: int, *, root: Path | None = None) -> bytes:
    """Return the bytes of a plain file of at most `limit_bytes`.

    Args:
        path: Of the file; the last part of it is never followed where it is a link.
        limit_bytes: Most bytes that are read.
        root: Folder above it below which no part is followed, so that a link created after the path was
            checked is refused; None: the folders above the file may be links.

    Raises:
        BundleNotFound: There is no such file.
        BundleUnavailable: This process may not read it now, the disk does not give it, or what is there is a link, a
            device, a pipe or a folder.
        MalformedBundle: A file too large.
    """
    try:
        opened = _open(path, root)
    except FileNotFoundError as error:
        raise BundleNotFound(f"there is no {path}") from error
    except OSError as error:
        raise BundleUnavailable(f"{path} cannot be opened: {error.strerror}") from error
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        raise BundleUnavailable(f"{path} is no plain file")
    with os.fdopen(opened, "rb") as file:
        content = file.read(limit_bytes + 1) if status.st_size <= limit_bytes else b""
    if status.st_size > limit_bytes or len(content) > limit_bytes:
        raise MalformedBundle(f"{path} has {status.st_size} bytes, at most {limit_bytes} are read")
    return content


def _open(path: Path, root: Path | None) -> int:
    # Not blocking, as opening a pipe would wait for a writer; not following, as a link may lead anywhere.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if root is None:
        return os.open(path, flags)
    *folders, name = path.relative_to(root).parts
    with ExitStack() as stack:
        above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, above)
        for folder in folders:
            above = os.open(folder, flags | os.O_DIRECTORY, dir_fd=above)
            stack.callback(os.close, above)
        return os.open(name, flags, dir_fd=above)


def read_checked(path: Path, limit_bytes: int, expected_sha256: str, *, root: Path | None = None) -> bytes:
    """Return the bytes of a plain file that has the expected digest.

    Raises:
        DigestMismatch: The bytes have another digest.
        BundleError: See `read_limited`.
    """
    content = read_limited(path, limit_bytes, root=root)
    was = digest(content)
    if was != expected_sha256:
        raise DigestMismatch(path.name, expected_sha256, was)
    return content


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder that appears with all its files or not at all, and never replaces one.

    Raises:
        BundleExists: There is something at the target already.
    """
    if os.path.lexists(target):
        raise BundleExists(f"{target} is already there, and bundles never change: choose another version")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        for name, content in files.items():
            write_synced(temporary / name, content)
            (temporary / name).chmod(0o444)
        sync(temporary)
        # Fails where another writer was quicker: a folder cannot be renamed onto one that is not empty.
        temporary.rename(target)
    except OSError as error:
        raise BundleExists(f"{target} could not be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(target.parent)
