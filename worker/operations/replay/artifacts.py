"""The artifact root as a heap of digests: which bundle or bare model has this one.

Owns: the walk below the root with its bounds, and the digests found on it.
Must not know: vectors, what a bundle holds, the registry.
Invariant: no link is followed; a file is read once, however many digests are asked for.
"""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

from strategies.errors import BundleError
from strategies.models.bundle_files import SIZE_LIMITS, digest, read_limited
from strategies.models.bundle_store import MANIFEST_FILE
from strategies.models.manifest import MODEL_FILE

#: Folders below the root, one in the other, that are entered: runs of MLflow are five deep.
MAX_DEPTH = 8
#: Files that are looked at, in order of path: what is beyond is not found.
MAX_FILES = 20_000


class Artifacts:
    """Bundles and model files anywhere below a root, by SHA-256, as they were when they were first asked for."""

    def __init__(self, root: Path) -> None:
        """Take the root; nothing is read before a digest is asked for."""
        self._root = root

    def bundle(self, sha256: str) -> Path | None:
        """Return the folder whose `bundle.json` has this digest; None = there is none within the bounds."""
        found = self._manifests.find(sha256)
        return found.parent if found else None

    def model(self, sha256: str) -> Path | None:
        """Return a file that has this digest, as a model may have any name; None = there is none within the bounds."""
        return self._models.find(sha256)

    @cached_property
    def _manifests(self) -> "_Digests":
        return _Digests(self._root, (path for path in self._files if path.name == MANIFEST_FILE))

    @cached_property
    def _models(self) -> "_Digests":
        others = [path for path in self._files if path.name != MANIFEST_FILE]
        # Names that models mostly have come first: any other file may be large.
        return _Digests(self._root, sorted(others, key=lambda path: path.suffix != Path(MODEL_FILE).suffix))

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        return tuple(islice(_walk(self._root), MAX_FILES))


class _Digests:
    """Files by digest, each hashed when nothing before it was what is looked for."""

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self._root, self._unread = root, iter(paths)
        self._known: dict[str, Path] = {}

    def find(self, sha256: str) -> Path | None:
        while sha256 not in self._known:
            path = next(self._unread, None)
            if path is None:
                return None
            self._known.setdefault(self._digest(path), path)
        return self._known[sha256]

    def _digest(self, path: Path) -> str:
        try:
            return digest(read_limited(path, SIZE_LIMITS.get(path.name, SIZE_LIMITS[MODEL_FILE]), root=self._root))
        except BundleError:  # a link, a pipe, too large for a model, gone
            return ""


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file below the root but those that are too deep, in order of path."""
    for folder, folders, files in os.walk(root):
        deep = len(Path(folder).relative_to(root).parts) >= MAX_DEPTH
        folders[:] = [] if deep else sorted(folders)
        yield from (Path(folder, name) for name in sorted(files))
