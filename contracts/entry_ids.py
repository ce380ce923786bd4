"""Entry ids of streams.

Owns: `EntryId`, its text `<milliseconds>-<sequence>`, its order and its time.
Must not know: clients, commands.
Invariant: ids compare as the server compares them: by number, never as text.
"""

import re
from dataclasses import dataclass
from typing import Self

#: Both parts are unsigned 64-bit integers on the server.
LARGEST_PART = 2**64 - 1
_PATTERN = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class EntryId:
    """The id of one stream entry; ordered by time, then by sequence."""

    #: Unix time in milliseconds at which the entry was added, by the server's clock.
    ms: int
    #: Number among the entries of that millisecond.
    sequence: int = 0

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Return the id of `<milliseconds>-<sequence>`; a missing sequence is 0, as the server reads it.

        Raises:
            ValueError: The text is no entry id.
        """
        decoded = text.decode("ascii", errors="replace") if isinstance(text, bytes) else text
        match = _PATTERN.fullmatch(decoded)
        if match is None:
            raise ValueError(f"{decoded[:64]!r} is no entry id, must be <milliseconds>-<sequence>")
        ms, sequence = int(match[1]), int(match[2] or 0)
        if max(ms, sequence) > LARGEST_PART:
            raise ValueError(f"{decoded!r} is no entry id, its parts are at most {LARGEST_PART}")
        return cls(ms, sequence)

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}"
