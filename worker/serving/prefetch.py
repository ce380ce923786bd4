"""How many entries to read at once.

Owns: the bound of a batch by bytes.
Must not know: streams, what entries mean.
Invariant: a batch of entries no larger than those before stays within its bytes; a single entry is always read.
"""

from collections.abc import Sequence

from worker.serving.entries import Entry

#: What remains of the largest size seen, a batch later: one giant slows the next reads, not all.
_FADE = 0.9


class Prefetch:
    """Adapts the number of entries to their size, since the server bounds a read by number alone."""

    def __init__(self, most: int, batch_bytes: int, entry_bytes: int) -> None:
        """Take the bounds, and the size that entries are taken to have before any is seen."""
        self._most, self._batch_bytes, self._entry_bytes = most, batch_bytes, float(entry_bytes)

    @property
    def count(self) -> int:
        """Entries to read next."""
        return max(1, min(self._most, int(self._batch_bytes / self._entry_bytes)))

    def note(self, entries: Sequence[Entry]) -> None:
        """Learn from what was read."""
        if entries:
            largest = max(sum(len(name) + len(value) for name, value in entry.pairs) for entry in entries)
            self._entry_bytes = max(float(largest), self._entry_bytes * _FADE, 1.0)
