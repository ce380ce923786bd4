"""`did you mean …?`: the one name that somebody probably had in mind.

Owns: when two names are near each other.
Must not know: what the names are of.
Invariant: nothing is proposed that is not near; names that differ in case, or in - and _, alone are nearest.
"""

import difflib
from collections.abc import Iterable

#: Least similarity of two names, as `difflib` measures it: twice the letters in common over all letters.
CUTOFF = 0.75


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is near to another one, or None."""
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_folded(candidate), candidate)
    if _folded(name) in folded:
        return folded[_folded(name)]
    close = difflib.get_close_matches(_folded(name), folded, n=1, cutoff=CUTOFF)
    return folded[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: `; did you mean …?`, or nothing."""
    proposed = nearest(name, known)
    return f"; did you mean {proposed}?" if proposed is not None and proposed != name else ""


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")
