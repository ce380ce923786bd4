"""Checking: what is odd about the bars of a snapshot.

Owns: the kinds of findings and how each is found.
Must not know: files, tables on a screen, what to do about a finding.
Invariant: a check changes nothing, and looks at no bar after the as-of session.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import Panel, SessionArray
from strategies.market.calendar import SessionCalendar

#: Every kind of finding, the most serious first.
KINDS = ("stale", "missing_sessions", "suspicious_jump", "zero_volume", "short_history", "late_start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One odd thing about one symbol."""

    kind: str
    symbol: str
    #: How many sessions or bars it is about.
    count: int
    #: The sessions themselves, ascending; for `stale`, `short_history` and `late_start` the one that shows it.
    sessions: tuple[date, ...]
    #: The finding in words.
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All findings about a snapshot, by kind and symbol."""

    snapshot_id: str
    as_of: date
    symbols: int
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Return kind to symbols it was found of."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckBounds:
    """From where on something is odd."""

    #: Bars a symbol needs: the lookback of the feature set, the as-of session included.
    lookback: int = 61
    #: Change of the close from one bar to the next, as a fraction; narrower than the bound of the import.
    max_move: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    """One symbol between its first bar and the as-of session."""

    symbol: str
    #: Every session of its life, `[sessions]`.
    sessions: SessionArray
    #: Whether there is a bar, `[sessions]`.
    present: NDArray[np.bool_]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    #: Whether its first bar is later than the panel's first session.
    late: bool


def check_snapshot(
    panel: Panel, calendar: SessionCalendar, *, as_of: date | None = None, bounds: CheckBounds | None = None
) -> CheckReport:
    """Return what is odd about the bars up to the as-of session.

    Args:
        panel: All bars of the snapshot.
        calendar: The calendar the panel stands on.
        as_of: Any covered day, default the panel's last session; may lie after it, and then every symbol is stale.
        bounds: From where on something is odd.

    Raises:
        CalendarRange: The day is not covered by the calendar.
    """
    last: date = panel.sessions[-1].astype(object)
    session = calendar.session_at_or_before(as_of or last)
    bounds = bounds or CheckBounds()
    findings = [finding for life in _lives(panel, session) for finding in _findings(life, calendar, session, bounds)]
    return CheckReport(
        snapshot_id=panel.snapshot_id,
        as_of=session,
        symbols=len(panel.symbols),
        findings=tuple(sorted(findings, key=lambda finding: (KINDS.index(finding.kind), finding.symbol))),
    )


def _lives(panel: Panel, as_of: date) -> Iterator[_Life]:
    stop = int(np.searchsorted(panel.sessions, np.datetime64(as_of, "D"), side="right"))
    for row, symbol in enumerate(panel.symbols):
        life = slice(int(panel.first[row]), stop)
        close = panel.fields["close"][row, life]
        yield _Life(
            symbol=symbol,
            sessions=panel.sessions[life],
            present=~np.isnan(close),
            close=close,
            volume=panel.fields["volume"][row, life],
            late=bool(panel.first[row] > 0),
        )


def _findings(life: _Life, calendar: SessionCalendar, as_of: date, bounds: CheckBounds) -> Iterator[Finding]:
    bars = np.flatnonzero(life.present)
    if not len(bars):
        yield Finding(kind="short_history", symbol=life.symbol, count=0, sessions=(), detail="no bar yet")
        return
    yield from _staleness(life, calendar, as_of)
    # After its last bar a symbol is stale, or gone; it misses nothing.
    missing = life.sessions[: bars[-1]][~life.present[: bars[-1]]]
    yield from _listed("missing_sessions", life.symbol, missing)
    moves = life.close[bars][1:] / life.close[bars][:-1] - 1
    jumps = np.abs(moves) > bounds.max_move
    yield from _listed("suspicious_jump", life.symbol, life.sessions[bars[1:][jumps]], moves[jumps])
    yield from _listed("zero_volume", life.symbol, life.sessions[life.volume == 0])
    yield from _beginnings(life, bounds)


def _staleness(life: _Life, calendar: SessionCalendar, as_of: date) -> Iterator[Finding]:
    last: date = life.sessions[life.present][-1].astype(object)
    behind = len(calendar.sessions_between(last, as_of)) - 1
    if behind > 0:
        detail = f"last bar {last}, {behind} sessions before {as_of}"
        yield Finding(kind="stale", symbol=life.symbol, count=behind, sessions=(last,), detail=detail)


def _listed(
    kind: str, symbol: str, sessions: SessionArray, moves: NDArray[np.float64] | None = None
) -> Iterator[Finding]:
    if len(sessions):
        notes = [""] * len(sessions) if moves is None else [f" {move:+.1%}" for move in moves]
        shown = [f"{session}{note}" for session, note in zip(sessions[:5], notes[:5], strict=True)]
        more = f" and {len(sessions) - 5} more" if len(sessions) > 5 else ""  # noqa: PLR2004 - a readable sentence
        days = tuple(sessions.astype(object).tolist())
        yield Finding(kind=kind, symbol=symbol, count=len(days), sessions=days, detail=", ".join(shown) + more)


def _beginnings(life: _Life, bounds: CheckBounds) -> Iterator[Finding]:
    first: date = life.sessions[0].astype(object)
    bars = int(life.present.sum())
    if bars < bounds.lookback:
        detail = f"{bars} bars, {bounds.lookback} are looked back on"
        yield Finding(kind="short_history", symbol=life.symbol, count=bars, sessions=(first,), detail=detail)
    if life.late:
        detail = f"first bar {first}"
        yield Finding(kind="late_start", symbol=life.symbol, count=1, sessions=(first,), detail=detail)
