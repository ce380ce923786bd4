"""Rules: what bars are compared with, the limits, and what becomes of what fails.

Owns: the one table of rules, and the limits that are a matter of judgement.
Must not know: how a rule is computed, files.
Invariant: every reason of the quarantine and every check of a snapshot is a row of `RULES`; docs/data.md is printed
from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date

#: What becomes of rows, symbols and snapshots that fail a rule.
ROW, SYMBOL, SNAPSHOT, IMPORT, REMARK = (
    "row held back",
    "symbol held back",
    "snapshot not served",
    "import refused",
    "remark",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits that are a matter of judgement, and what somebody has looked at and settled."""

    #: Largest believable change of the adjusted close from one accepted bar to the next, as a fraction.
    max_move: float = 0.5
    #: How far open and close may be outside [low, high], as a fraction of the bound. Multiplying one row by one
    #: factor keeps its order exactly, so this only forgives vendors that pass some columns through float32 (6e-8).
    range_tolerance: float = 1e-6
    #: How far open and high may be above, open and low below, both their own close and the last accepted one, as a
    #: fraction.
    max_spike: float = 0.5
    #: Largest ratio of two closes that a later close may confirm as a new price level.
    max_level: float = 10.0
    #: How near a move must be to n:m to look like a split, as a fraction.
    split_tolerance: float = 0.02
    #: How near a ratio must be to 100 or 1,000 to be a unit mix-up, as a fraction.
    unit_tolerance: float = 0.35
    #: How near the volume of a repeated bar is to the earlier one, as a fraction.
    repeat_tolerance: float = 1e-3
    #: Bars of the last session, as a share of the symbols with a bar in the sessions before.
    last_session_coverage: float = 0.8
    #: Share of the last session's closes that equal the close before.
    last_session_unchanged: float = 0.5
    #: Share of the last session's closes that moved beyond `outlier_move`.
    last_session_outliers: float = 0.2
    #: Move that counts as an outlier of the last session, as a fraction.
    outlier_move: float = 0.25
    #: Median step of all volumes from one session to the next, as a ratio.
    cross_section_volume: float = 8.0
    #: Median move of all closes of one session that one factor explains, as a fraction.
    cross_section_move: float = 0.05
    #: Share of the symbols of which newer rules may hold back a bar of the last sessions.
    newer_rules: float = 0.05
    #: Share of a source's dates that may be no sessions of its calendar.
    foreign_dates: float = 0.02
    #: Share of a source's rows, or of its files, that may be held back.
    max_bad: float = 0.5
    #: (symbol, session) of moves that somebody has looked at and found real.
    confirmed_moves: frozenset[tuple[str, date]] = field(default_factory=frozenset)
    #: Sessions whose cross-section somebody has looked at and found real.
    confirmed_sessions: frozenset[date] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table."""

    name: str
    compares: str
    becomes: str
    #: Name of the limit in `Rules`; empty: the rule has none.
    limit: str = ""
    #: Option of `data import` that changes the limit or settles the case; empty: `--limit`, where there is a limit.
    setting: str = ""
    #: Raised when the rule finds something else than before, so that older snapshots are checked again.
    version: int = 1

    def default(self, rules: Rules | None = None) -> str:
        """Return the limit as text."""
        return f"{getattr(rules or Rules(), self.limit):g}" if self.limit else ""

    def set_by(self) -> str:
        """Return the option that changes the limit or settles the case."""
        return self.setting or (f"--limit {self.limit}=…" if self.limit else "")


def _row(name: str, compares: str, **more: str) -> Rule:
    return Rule(name=name, compares=compares, becomes=ROW, **more)  # type: ignore[arg-type]  # texts alone


#: Rules of rows, in the order in which a row lists its reasons.
ROW_RULES: tuple[Rule, ...] = (
    _row("unreadable_cell", "a cell with the numbers and dates it may hold"),
    _row("missing_date", "the date with nothing"),
    _row("after_run_date", "the date with the run date"),
    _row(
        "not_closed",
        "the session's close and settle minutes with the clock of the import",
        setting="SIGNALS_SETTLE_MINUTES",
    ),
    _row("outside_calendar", "the date with the days that the calendar covers", setting="--calendar"),
    _row("not_a_session", "the date with the sessions of the calendar", setting="--calendar"),
    _row("life_ended", "the date with the lives of the mapping file", setting="--symbols"),
    _row("duplicate_date", "a row with an equal row of the same date before it"),
    _row("conflicting_date", "rows of one date with each other"),
    _row("out_of_order", "the order of the dates with the longest ascending part"),
    _row("missing_price", "open, high, low and close with nothing"),
    _row("non_positive_price", "open, high, low and close with 0"),
    _row("missing_volume", "the volume with nothing"),
    _row("negative_volume", "the volume with 0"),
    _row("missing_factor", "the factor or the adjusted close with nothing"),
    _row("non_positive_factor", "the factor with 0"),
    _row(
        "contradicting_actions",
        "splits, dividends, previous close, factor and adjusted close with each other and the move",
        setting="--adjust",
    ),
    _row("adjusted_out_of_bounds", "adjusted prices and volume with what float32 holds"),
    _row("non_positive_vwap", "the vwap with 0"),
    _row("high_below_low", "the high with the low"),
    _row("open_outside_range", "the open with low and high", limit="range_tolerance"),
    _row("close_outside_range", "the close with low and high", limit="range_tolerance"),
    _row("price_spike", "open, high and low with the close and the last accepted close", limit="max_spike"),
    _row("repeated_bar", "the bar with the five before it: same prices, same volume", limit="repeat_tolerance"),
    _row(
        "volume_unit",
        "the volume with the median of the 20 before it, in a long block with its own: 100 or 1,000 times",
        setting="--confirm-move SYMBOL:DATE",
    ),
    _row(
        "unit_mixup",
        "the close with the last accepted close: 100 or 1,000 times",
        limit="unit_tolerance",
        setting="--confirm-move SYMBOL:DATE",
    ),
    _row(
        "split_like",
        "open and close with the last accepted close: n:m, from 3:2 on within 12%, with the volume of a split",
        limit="split_tolerance",
        setting="--split SYMBOL=DATE:RATIO or --confirm-move SYMBOL:DATE",
    ),
    _row(
        "unexplained_move",
        "the adjusted close with the last accepted one; the next close confirms a new level, up to `max_level` times",
        limit="max_move",
        setting="--max-move, --confirm-move SYMBOL:DATE",
    ),
)
#: Rules of symbols.
SYMBOL_RULES: tuple[Rule, ...] = (
    Rule(name="unreadable_file", compares="a file with the formats that are read", becomes=SYMBOL),
    Rule(
        name="other_exchange",
        compares="a symbol's dates with the sessions of the calendar",
        becomes=SYMBOL,
        limit="foreign_dates",
        setting="--calendar",
    ),
    Rule(
        name="held_back",
        compares="sessions since an unsettled split-like move with the lookback",
        becomes="symbol not priced",
        setting="--split or --confirm-move",
    ),
    Rule(
        name="not_tradable",
        compares="the as-of bar with volume 0 and no range after a bar like it, or a halt flag",
        becomes="symbol not priced",
    ),
)
#: Checks of the snapshot as a whole; run at import and at load.
SNAPSHOT_RULES: tuple[Rule, ...] = (
    Rule(
        name="last_session_coverage",
        compares="symbols with a bar on the last session with those of the five sessions before",
        becomes=SNAPSHOT,
        limit="last_session_coverage",
    ),
    Rule(
        name="feed_stopped",
        compares="the symbols without a bar on the last session with the end of the alphabet",
        becomes=SNAPSHOT,
    ),
    Rule(
        name="last_session_unchanged",
        compares="closes of the last session with the closes before",
        becomes=SNAPSHOT,
        limit="last_session_unchanged",
    ),
    Rule(
        name="last_session_outliers",
        compares="moves of the last session with `outlier_move`",
        becomes=SNAPSHOT,
        limit="last_session_outliers",
    ),
    Rule(
        name="volume_shifted",
        compares="the median step of all volumes with 1, session by session",
        becomes=SNAPSHOT,
        limit="cross_section_volume",
        setting="--confirm-session DATE",
    ),
    Rule(
        name="cross_section_moved",
        compares="the median move of all closes with their spread, session by session",
        becomes=SNAPSHOT,
        limit="cross_section_move",
        setting="--confirm-session DATE",
    ),
    Rule(
        name="newer_rules",
        compares="bars of the last 61 sessions with rules of rows that are newer than the snapshot",
        becomes=SNAPSHOT,
        limit="newer_rules",
    ),
)
#: Rules of the import as a whole.
IMPORT_RULES: tuple[Rule, ...] = (
    Rule(
        name="foreign_calendar",
        compares="dates of all symbols with the sessions of the calendar, and of the others",
        becomes=IMPORT,
        limit="foreign_dates",
        setting="--calendar",
    ),
    Rule(
        name="too_much_held_back", compares="rows and files held back with all of them", becomes=IMPORT, limit="max_bad"
    ),
    Rule(
        name="sessions_without_bars",
        compares="sessions of the calendar with the dates of all symbols",
        becomes=REMARK,
        setting="--calendar",
    ),
)
RULES = ROW_RULES + SYMBOL_RULES + SNAPSHOT_RULES + IMPORT_RULES
#: Every reason of a row, in the order in which a row lists them.
REASONS = tuple(rule.name for rule in ROW_RULES)
#: Names of the limits that `--limit` sets.
LIMITS = tuple(one.name for one in fields(Rules) if one.type is float or one.type == "float")


def with_limits(limits: Mapping[str, float]) -> Rules:
    """Return the rules with these limits, by name, and nothing settled."""
    return Rules(**limits)  # type: ignore[arg-type]  # limits alone, which are all numbers


def limited(texts: Sequence[str]) -> dict[str, float]:
    """Return limit to value, as settings write them.

    Args:
        texts: `NAME=VALUE` each.

    Raises:
        ValueError: There is no such limit, or the value is not above 0.
    """
    given = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in LIMITS:
            raise ValueError(f"{name!r} is no limit of bars; the limits are {', '.join(LIMITS)}")
        try:
            given[name] = float(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a number, it was {value!r}") from error
        if not 0 < given[name] < float("inf"):
            raise ValueError(f"{name} must be above 0, it was {value}")
    return given


def rules_page() -> str:
    """Return the table of docs/data.md."""
    lines = [
        "| rule | compares | default limit | changed or settled by | what becomes of it |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{rule.name}` | {rule.compares} | {rule.default()} | {rule.set_by()} | {rule.becomes} |" for rule in RULES
    ]
    return "\n".join(lines) + "\n"


def row_versions() -> dict[str, int]:
    """Return rule of rows to its version, for the manifest."""
    return {rule.name: rule.version for rule in ROW_RULES}


def stated(rules: Rules) -> Mapping[str, float]:
    """Return limit to value, for the manifest."""
    return {name: getattr(rules, name) for name in LIMITS}
