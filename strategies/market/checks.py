"""Checks: what a snapshot as a whole must prove before it serves.

Owns: the checks of the last session and of whole cross-sections.
Must not know: files, manifests' encoding, what serves.
Invariant: a check looks at closes and volumes on the calendar alone, so that it says the same at import and at load.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from strategies.market.bars import FIELDS, BoolArray, IntArray, Panel, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import CheckResult
from strategies.market.quarantine import Suspects, judge_rows
from strategies.market.rules import SNAPSHOT_RULES, Rules

#: Sessions before the last one that say which symbols are expected on it, and in how many of them one must be.
BEFORE, PRESENT = 5, 3
#: Fewest symbols that a share is taken of, and fewest that must be wrong.
FEWEST, FEWEST_WRONG = 10, 3
#: Most of a common move that its spread may be, for one factor to have made it.
_SPREAD_PART = 0.25
#: Last sessions in which newer rules must find little: what features look back on.
_LATE = 61
#: Sessions whose steps are computed at once, and symbols that are put together.
_BLOCK = 64
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """What the checks look at: closes and volumes of all symbols on the calendar, `[symbols, sessions]`."""

    #: Ascending.
    symbols: tuple[str, ...]
    sessions: SessionArray
    close: Float32
    volume: Float32


class Gathering:
    """Collects closes and volumes symbol by symbol, in as little memory as they need.

    Args:
        calendar_sessions: Every session that a bar may be of, ascending.
    """

    def __init__(self, calendar_sessions: SessionArray) -> None:
        self._sessions = calendar_sessions
        self._waiting: list[tuple[str, IntArray, Float32, Float32]] = []
        self._blocks: list[_Block] = []

    def add(self, symbol: str, sessions: SessionArray, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Take one symbol's bars; all of them are sessions of the calendar."""
        at = np.searchsorted(self._sessions, sessions)
        with np.errstate(over="ignore"):
            close, volume = (columns[name].astype(np.float32) for name in ("close", "volume"))
        self._waiting.append((symbol, at, close, volume))
        if len(self._waiting) == _BLOCK:
            self._blocks.append(_block_of(self._waiting))
            self._waiting = []

    def closes(self) -> Closes:
        """Return everything on the sessions from the first bar to the last, and keep nothing."""
        if self._waiting:
            self._blocks.append(_block_of(self._waiting))
        first = min(block.first for block in self._blocks)
        last = max(block.first + block.values.shape[2] for block in self._blocks)
        symbols = tuple(sorted(symbol for block in self._blocks for symbol in block.symbols))
        rows = {symbol: row for row, symbol in enumerate(symbols)}
        values = np.full((2, len(symbols), last - first), np.nan, np.float32)
        while self._blocks:
            block = self._blocks.pop()
            start = block.first - first
            values[:, [rows[one] for one in block.symbols], start : start + block.values.shape[2]] = block.values
        return Closes(symbols=symbols, sessions=self._sessions[first:last], close=values[0], volume=values[1])


class _Block(NamedTuple):
    """Closes and volumes of some symbols, `[2, symbols, sessions]`, from a session of the calendar on."""

    symbols: tuple[str, ...]
    first: int
    values: Float32


def _block_of(bars: Sequence[tuple[str, IntArray, Float32, Float32]]) -> _Block:
    first, last = min(int(at[0]) for _, at, *_ in bars), max(int(at[-1]) for _, at, *_ in bars)
    values = np.full((2, len(bars), last + 1 - first), np.nan, np.float32)
    for row, (_, at, close, volume) in enumerate(bars):
        values[0, row, at - first], values[1, row, at - first] = close, volume
    return _Block(tuple(symbol for symbol, *_ in bars), first, values)


def closes_of(panel: Panel, *, sessions: int | None = None) -> Closes:
    """Return a panel's closes and volumes, of the last sessions alone where a number is given."""
    kept = slice(None) if sessions is None else slice(-sessions, None)
    with np.errstate(over="ignore"):
        close, volume = (panel.fields[name][:, kept].astype(np.float32) for name in ("close", "volume"))
    return Closes(symbols=panel.symbols, sessions=panel.sessions[kept], close=close, volume=volume)


def run_checks(closes: Closes, rules: Rules, *, names: frozenset[str] | None = None) -> dict[str, CheckResult]:
    """Return name to what each check found.

    Args:
        closes: All symbols' closes and volumes.
        rules: The limits, and what is settled.
        names: Checks to run, default all.
    """
    checks: Mapping[str, Callable[[Closes, Rules], str]] = {
        "last_session_coverage": _coverage,
        "feed_stopped": _feed_stopped,
        "last_session_unchanged": _unchanged,
        "last_session_outliers": _outliers,
        "volume_shifted": _volume_shifted,
        "cross_section_moved": _moved,
        # Bars that are imported now were judged by all of them; `judged_late` judges those that were not.
        "newer_rules": lambda _closes, _rules: "",
    }
    found = {}
    for rule in SNAPSHOT_RULES:
        if names is None or rule.name in names:
            with np.errstate(all="ignore"):
                wrong = checks[rule.name](closes, rules)
            limit = float(getattr(rules, rule.limit)) if rule.limit else 0.0
            found[rule.name] = CheckResult(
                name=rule.name, version=rule.version, passed=not wrong, limit=limit, detail=wrong or "passed"
            )
    return found


def judged_late(
    panel: Panel, calendar: SessionCalendar, run_date: date, rules: Rules, names: Collection[str]
) -> CheckResult:
    """Return what rules of rows find in the last bars of a snapshot that was imported before they were made.

    Args:
        panel: All bars of the snapshot.
        calendar: Of the snapshot.
        run_date: Of the snapshot.
        rules: The limits, and what is settled.
        names: The rules that are newer.
    """
    held: dict[str, set[str]] = {}
    for row, symbol in enumerate(panel.symbols) if names else ():
        at = np.flatnonzero(~np.isnan(panel.fields["close"][row]))
        bars = {name: values[row, at] for name, values in panel.fields.items() if name in FIELDS}
        suspects = Suspects(symbol=symbol, dates=panel.sessions[at], raw=bars, adjusted=bars, factor=np.ones(len(at)))
        late = at >= len(panel.sessions) - _LATE
        for name, flag in judge_rows(suspects, calendar, run_date, rules).flags.items():
            if name in names and flag[late].any():
                held.setdefault(symbol, set()).add(name)
    share = len(held) / len(panel.symbols)
    passed = share <= rules.newer_rules
    reasons = Counter(name for one in held.values() for name in one)
    detail = (
        f"{len(held)} of {len(panel.symbols)} symbols have bars that newer rules hold back, limit "
        f"{rules.newer_rules:.0%}: {', '.join(sorted(held)[:5])} ({', '.join(reasons)}); import the bars again"
    )
    limit, version = rules.newer_rules, 1
    return CheckResult(
        name="newer_rules", version=version, passed=passed, limit=limit, detail="passed" if passed else detail
    )


def _expected(closes: Closes) -> BoolArray:
    """Return the symbols that should have a bar on the last session."""
    before = ~np.isnan(closes.close[:, -BEFORE - 1 : -1])
    if before.shape[1] < BEFORE:
        return np.zeros(len(closes.symbols), bool)
    expected: BoolArray = before.sum(axis=1) >= PRESENT
    return expected


def _coverage(closes: Closes, rules: Rules) -> str:
    expected = _expected(closes)
    missing = int((expected & np.isnan(closes.close[:, -1])).sum())
    count = int(expected.sum())
    limit = rules.last_session_coverage
    if count and missing >= FEWEST_WRONG and (count - missing) / count < limit:
        names = _names(closes, expected & np.isnan(closes.close[:, -1]))
        have = f"{count - missing} of {count} symbols have a bar on {closes.sessions[-1]}"
        return f"{have}, limit {limit:.0%}; missing {names}"
    return ""


def _feed_stopped(closes: Closes, _rules: Rules) -> str:
    at = np.flatnonzero(_expected(closes))
    missing = np.isnan(closes.close[at, -1])
    count = int(missing.sum())
    if len(at) >= FEWEST and BEFORE <= count < len(at) and missing[-count:].all():
        first = closes.symbols[at[-count]]
        return f"every symbol from {first} on, {count} of {len(at)}, has no bar on {closes.sessions[-1]}"
    return ""


def _unchanged(closes: Closes, rules: Rules) -> str:
    if closes.close.shape[1] < 2:  # noqa: PLR2004 - a session and the one before
        return ""
    last, before = closes.close[:, -1], closes.close[:, -2]
    both = ~np.isnan(last) & ~np.isnan(before)
    same, count = int((last[both] == before[both]).sum()), int(both.sum())
    if same > BEFORE and same / count > rules.last_session_unchanged:
        limit = f"limit {rules.last_session_unchanged:.0%}"
        return f"{same} of {count} closes of {closes.sessions[-1]} are those of the session before, {limit}"
    return ""


def _outliers(closes: Closes, rules: Rules) -> str:
    if closes.close.shape[1] < 2:  # noqa: PLR2004 - a session and the one before
        return ""
    moves = closes.close[:, -1] / closes.close[:, -2] - 1
    known = ~np.isnan(moves)
    far = known & (np.abs(moves) > rules.outlier_move)
    if far.sum() >= FEWEST_WRONG and far.sum() / known.sum() > rules.last_session_outliers:
        return (
            f"{far.sum()} of {known.sum()} closes of {closes.sessions[-1]} moved more than {rules.outlier_move:.0%}, "
            f"limit {rules.last_session_outliers:.0%}: {_names(closes, far)}"
        )
    return ""


def _volume_shifted(closes: Closes, rules: Rules) -> str:
    found = [
        f"the median volume of {closes.sessions[at]} is {np.exp(median):.3g} times that of the session before"
        for at, median, _ in _medians(closes.volume)
        if abs(median) > np.log(rules.cross_section_volume) and _unconfirmed(closes, at, rules)
    ]
    return _first(found)


def _moved(closes: Closes, rules: Rules) -> str:
    found = [
        f"all closes moved by one factor on {closes.sessions[at]}: median {np.expm1(median):+.1%}, spread {spread:.1%}"
        for at, median, spread in _medians(closes.close)
        if abs(median) > np.log1p(rules.cross_section_move)
        and spread < _SPREAD_PART * abs(median)
        and _unconfirmed(closes, at, rules)
    ]
    return _first(found)


def _medians(values: Float32) -> Iterator[tuple[int, float, float]]:
    """Return session, median and spread of the steps of each session, in logarithms, where enough symbols have one."""
    for start in range(0, values.shape[1] - 1, _BLOCK):
        # A block of sessions at a time: all steps at once would take the memory of another panel or three.
        block = values[:, start : start + _BLOCK + 1].T.copy()
        steps = np.diff(np.log(np.where(block > 0, block, np.nan)), axis=0)
        for at, row in enumerate(steps, start=start + 1):
            known = row[np.isfinite(row)]
            if len(known) >= FEWEST:
                median = float(np.median(known))
                yield at, median, float(np.median(np.abs(known - median))) * 1.4826


def _unconfirmed(closes: Closes, at: int, rules: Rules) -> bool:
    return closes.sessions[at].astype(object) not in rules.confirmed_sessions


def _first(found: list[str]) -> str:
    return "; ".join(found[:3]) + (f" and {len(found) - 3} sessions more" if len(found) > 3 else "")  # noqa: PLR2004


def _names(closes: Closes, chosen: BoolArray) -> str:
    at = np.flatnonzero(chosen)
    more = f" and {len(at) - 5} more" if len(at) > 5 else ""  # noqa: PLR2004 - a readable sentence
    return ", ".join(closes.symbols[row] for row in at[:5]) + more
