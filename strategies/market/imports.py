"""Imports: what one is asked for, and what it reports.

Owns: `ImportOptions` and `ImportReport`.
Must not know: files, how rows are read or judged.
Invariant: frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from strategies.market.lives import Life
from strategies.market.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How raw bars are read and judged."""

    #: Exchange calendar, a code of `exchange_calendars`, or the name of a file below `calendars/`.
    calendar: str = "XNYS"
    #: One of `ADJUSTMENTS`; `auto`: by whichever columns there are, as far as they agree.
    adjustment: str = "auto"
    #: Field to column name, where a vendor's names are not recognised.
    columns: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    #: Name of a vendor, or `auto`: recognised by the heading.
    like: str = "auto"
    #: Minutes after the close until a session counts as complete.
    settle_minutes: int = 0
    #: (symbol, first session after it, new shares for one) of splits that no column states.
    splits: tuple[tuple[str, date, float], ...] = ()
    #: Renames and tickers that another company took over.
    lives: tuple[Life, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did."""

    path: Path
    snapshot_id: str
    run_date: date
    #: False: the run date already held this very snapshot, and nothing was written.
    created: bool
    #: 1, or more where the run date was imported before with other bars.
    revision: int
    vendor: str
    adjustment: str
    has_vwap: bool
    symbols: int
    #: Rows that became bars, rows in quarantine.
    accepted: int
    quarantined: int
    #: Reason to rows it holds for; a row may have several.
    reasons: Mapping[str, int]
    #: Symbol to rows in quarantine, for those that have any.
    quarantined_symbols: Mapping[str, int]
    #: Symbols of which no row was accepted; the snapshot lacks them.
    empty_symbols: tuple[str, ...]
    #: Verdict to symbols.
    verdicts: Mapping[str, int]
    #: Symbol to the sessions since which it is held back.
    unsettled: Mapping[str, tuple[date, ...]]
    #: File or place to why it was refused.
    refused: Mapping[str, str]
    #: Sentences about the source as a whole.
    remarks: tuple[str, ...]
    #: Check to what failed; empty: a worker loads the snapshot.
    failed: Mapping[str, str]

    @property
    def served(self) -> bool:
        """Return whether a worker loads the snapshot."""
        return not self.failed
