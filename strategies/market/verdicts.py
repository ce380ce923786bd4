"""Verdicts: one symbol's raw rows, adjusted and judged.

Owns: the order of adjusting and judging, the verdict of a symbol.
Must not know: folders, snapshots on disk.
Invariant: every row is a bar or has a reason; a symbol is accepted, accepted with remarks, or held back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from strategies.market.actions import Adjustment, understand, with_splits
from strategies.market.adjustment import adjust
from strategies.market.bars import BoolArray, FloatArray, IntArray, SessionArray
from strategies.market.calendar import SessionCalendar
from strategies.market.manifest import RAW
from strategies.market.quarantine import Suspects, judge_rows
from strategies.market.readers import RawBars
from strategies.market.rules import Rules

#: Verdicts of a symbol.
ACCEPTED, REMARKS, HELD = "accepted", "accepted with remarks", "held back"
#: Fewest dates outside the calendar that show that a file is of another exchange.
_FOREIGN_DATES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What an import was told beside the rows."""

    calendar: SessionCalendar
    run_date: date
    rules: Rules
    #: Last session that had closed by the clock of the import; None: it is not known.
    closed_until: date | None = None
    #: (symbol, first session after it, new shares for one) of splits that no column states.
    splits: tuple[tuple[str, date, float], ...] = ()
    #: What most symbols of the source showed about their factor: `adjusted` or nothing.
    decided: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one symbol's rows."""

    symbol: str
    #: Of the accepted bars, ascending, `[bars]`.
    sessions: SessionArray
    #: Column to adjusted values `[bars]`: the five, `factor`, and `vwap` and `halted` where known.
    columns: dict[str, FloatArray]
    #: Reason to the rows it holds for, `[rows]`.
    flags: dict[str, BoolArray]
    #: Sessions at which a level began that looks like a split nobody has settled.
    unsettled: tuple[date, ...]
    adjusted_by: str
    #: Field to values as the vendor wrote them `[bars]`, where they were adjusted, and columns of corporate actions.
    raw: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Return whether the symbol is accepted."""
        if not len(self.sessions) or self.unsettled:
            return HELD
        return REMARKS if self.flags else ACCEPTED


def judged(rows: RawBars, settled: Settled, *, ended: BoolArray | None = None) -> Judged:
    """Return what becomes of one symbol's rows.

    Args:
        rows: As the vendor wrote them.
        settled: What the import was told.
        ended: Rows outside the lives that a mapping file states, `[rows]`; None: it states none.
    """
    adjustment = _adjustment(rows, settled)
    adjusted = adjust(rows.values, adjustment.multiplier)
    suspects = Suspects(
        symbol=rows.symbol,
        dates=rows.dates,
        raw=rows.values,
        adjusted=adjusted,
        factor=adjustment.factor,
        unreadable=np.isin(np.arange(len(rows.dates)), list(rows.unreadable)) if rows.unreadable else None,
        contradicting=adjustment.contradicting,
        closed_until=settled.closed_until,
        ended=ended,
    )
    judgement = judge_rows(suspects, settled.calendar, settled.run_date, settled.rules)
    flags = dict(judgement.flags)
    accepted = ~np.logical_or.reduce([np.zeros(len(rows.dates), bool), *flags.values()])
    # Accepted rows ascend, or descend from start to end.
    kept = np.flatnonzero(accepted)[np.argsort(rows.dates[accepted], kind="stable")]
    columns = {name: values[kept] for name, values in {**adjusted, "factor": adjustment.factor}.items()}
    if rows.halted is not None and rows.halted[kept].any():
        columns["halted"] = rows.halted[kept].astype(np.float64)
    if "vwap" in columns and np.isnan(columns["vwap"]).all():
        del columns["vwap"]
    return Judged(
        symbol=rows.symbol,
        sessions=rows.dates[kept],
        columns=columns,
        flags=flags,
        unsettled=judgement.unsettled,
        adjusted_by=adjustment.used,
        raw=_kept_raw(rows, adjustment, kept),
    )


def _kept_raw(rows: RawBars, adjustment: Adjustment, kept: IntArray) -> dict[str, FloatArray]:
    """Return what the vendor wrote of the bars, as far as they do not state it themselves."""
    if (adjustment.multiplier[kept] == 1).all():
        events = ("dividend", "split")
        return {name: rows.values[name][kept] for name in events if (rows.values.get(name, np.zeros(1)) > 0).any()}
    return {name: rows.values[name][kept] for name in RAW if name in rows.values}


def is_foreign(result: Judged, rows: RawBars, rules: Rules) -> bool:
    """Return whether a symbol's dates are those of another exchange."""
    outside = result.flags.get("not_a_session")
    if outside is None:
        return False
    count = int(outside.sum())
    return count >= _FOREIGN_DATES and count > rules.foreign_dates * len(rows.dates)


def shows_adjusted_prices(samples: Sequence[RawBars], settled: Settled) -> bool:
    """Return whether most symbols that have a factor show that their prices are adjusted by it already."""
    used = [
        _adjustment(rows, settled).used for rows in samples if "factor" in rows.values and rows.adjustment == "auto"
    ]
    return bool(used) and used.count("adjusted") * 2 > len(used)


def _adjustment(rows: RawBars, settled: Settled) -> Adjustment:
    sessions = settled.calendar.sessions
    at = np.searchsorted(sessions, rows.dates)
    order = np.argsort(rows.dates, kind="stable")
    following = np.zeros(len(at), bool)
    # Duplicates of a date do not part a session from the one before it.
    distinct = np.concatenate(([True], np.diff(rows.dates[order]) != np.timedelta64(0, "D")))[: len(order)]
    places = order[distinct]
    following[places[1:]] = np.diff(at[places]) == 1
    found = understand(rows.dates, rows.values, rows.adjustment, following, decided=settled.decided)
    mine = [(day, ratio) for symbol, day, ratio in settled.splits if symbol == rows.symbol]
    return with_splits(found, rows.dates, mine) if mine else found
