"""Files: YAML read within bounds, and writes that survive a power cut.

Owns: the bound on a file's size, refusal of duplicate keys and of aliases, how values are quoted in errors, fsync,
arrays that need not stay in memory.
Must not know: what the files contain, or when they are renamed into place.
Invariant: nothing is built that is much larger than the file, nothing in a file is ignored silently; what a caller
renames after `write_synced` and `sync` is never empty or half written.
"""

import mmap
import os
from collections.abc import Hashable
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeGuard

import numpy as np
import yaml
from numpy.typing import NDArray

#: Largest file, in bytes.
MAX_BYTES = 1_000_000
#: Size from which an array is kept in a file, in bytes.
SCRATCH_BYTES = 64 * 1024**2
#: Longest whole number, in bits, and how much of a value an error shows, in characters.
_MOST_BITS, _SHOWN = 64, 160


class UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses aliases, and duplicate keys, of which YAML silently keeps the last."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; aliases are refused, as a few nested ones expand to more text than fits in memory."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it open
            line = event.start_mark.line + 1
            raise yaml.YAMLError(
                f"the alias *{event.anchor} in line {line} is not allowed: write out what it stands for"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002
        """Return the mapping of a node, in order."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {shown(key)} is given twice or is no text, in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Return the content of a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is too large, no UTF-8, nested too deep, or no YAML.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    try:
        content: object = yaml.load(data.decode(), UniqueKeys)  # noqa: S506 - PyYAML's safe loader
    except (RecursionError, yaml.YAMLError) as error:
        raise ValueError(first_line(error)) from error
    return content


def shown(value: object) -> str:
    """Return a value as text for an error message, cut where it is long."""
    # Python refuses to format numbers of more than 4300 digits.
    text = f"a number of {value.bit_length()} bits" if is_long(value) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def is_long(value: object) -> TypeGuard[int]:
    """Return whether this is a whole number beyond 64 bits."""
    return isinstance(value, int) and value.bit_length() > _MOST_BITS


def first_line(error: Exception) -> str:
    """Return an error's message on one line, its class name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and return when the disk has it; its name lasts once its folder is synced too."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Return when the disk has the content of a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def scratch_array(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array that is not filled yet; a large one in a file without a name, where the disk has room for it.

    Its pages can leave memory while nobody uses them: see `release`.
    """
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    if size < SCRATCH_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, np.float32)
    try:
        with TemporaryFile() as file:
            # A full disk shows here: a page that cannot be written later ends the process.
            os.posix_fallocate(file.fileno(), 0, size)
            pages = mmap.mmap(file.fileno(), size)
    except OSError:
        return np.empty(shape, np.float32)
    return np.frombuffer(pages, np.float32).reshape(shape)


def release(array: NDArray[np.float32]) -> None:
    """Let the pages of a scratch array leave memory; they are read again when they are used."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    pages = base.obj if isinstance(base, memoryview) else base
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.flush()
        pages.madvise(mmap.MADV_DONTNEED)
