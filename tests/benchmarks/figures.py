"""The figures of one run: what was measured, the goal, and what stands beside it.

Owns: `Figure` and how seconds and bytes are spelt.
Must not know: how anything is measured.
Invariant: a figure without a value says why.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    work: str
    #: As it is shown.
    value: str
    goal: str = ""
    #: None where there is no goal, or nothing to hold against it.
    met: bool | None = None
    qlib: str = ""
    kunquant: str = ""


def spell_seconds(seconds: float) -> str:
    """Return a duration with three digits and a fitting unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e3:.2g} ms"


def spell_bytes(size: float) -> str:
    """Return a size in MB or GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 1e6:.0f} MB"
