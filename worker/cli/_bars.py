"""What the verbs about bars share: their options, errors, tables.

Owns: texts of the command line into rules and options, the room's errors into a sentence.
Must not know: what a verb does.
Invariant: a wrong option ends with one sentence and exit code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli._common import ExitCode, refuse
from worker.cli._tables import Column, print_line, print_table

if TYPE_CHECKING:
    from strategies.market.derived import DerivedReport
    from strategies.market.imports import ImportOptions, ImportReport
    from strategies.market.rules import Rules

#: Lines of one kind that are printed.
MANY = 20


def rules_of(max_move: float, limits: list[str], moves: list[str], sessions: list[str]) -> "Rules":
    from strategies.market.rules import LIMITS, Rules

    pairs = [pair_of(text, ":", "--confirm-move") for text in moves]
    given: dict[str, float] = {"max_move": max_move}
    for name, text in (pair_of(text, "=", "--limit") for text in limits):
        if name not in LIMITS:
            refuse(f"--limit: {name!r} is no limit; the limits are {', '.join(LIMITS)}")
        given[name] = number_of(text, f"--limit {name}")
    return Rules(
        **given,
        confirmed_moves=frozenset((symbol_of(symbol), day_of(day, "--confirm-move")) for symbol, day in pairs),
        confirmed_sessions=frozenset(day_of(day, "--confirm-session") for day in sessions),
    )


def options_of(
    calendar: str,
    adjust: str,
    columns: list[str],
    rules: "Rules",
    splits: list[str],
    *,
    like: str,
    settle_minutes: int,
    symbols: Path | None,
) -> "ImportOptions":
    from strategies.market.columns import ADJUSTMENTS
    from strategies.market.importing import ImportOptions
    from strategies.market.lives import read_lives

    if adjust not in ADJUSTMENTS:
        refuse(f"--adjust was {adjust!r}, must be one of {', '.join(ADJUSTMENTS)}")
    return ImportOptions(
        calendar=calendar,
        adjustment=adjust,
        columns=dict(pair_of(text, "=", "--column") for text in columns),
        rules=rules,
        like=like,
        settle_minutes=settle_minutes,
        splits=tuple(split_of(text) for text in splits),
        lives=read_lives(symbols) if symbols else (),
    )


def split_of(text: str) -> tuple[str, date, float]:
    symbol, rest = pair_of(text, "=", "--split")
    day, ratio = pair_of(rest, ":", "--split")
    new, _, old = ratio.partition("/")
    share = number_of(new, "--split") / (number_of(old, "--split") if old else 1.0)
    if not 1e-4 <= share <= 1e4:  # noqa: PLR2004 - beyond any split that was made
        refuse(f"--split was {text!r}, the ratio must be from 0.0001 to 10,000 new shares for one old share")
    return symbol_of(symbol), day_of(day, "--split"), share


def event_of(text: str, option: str) -> tuple[str, date, float]:
    symbol, rest = pair_of(text, "=", option)
    day, amount = pair_of(rest, ":", option)
    return symbol_of(symbol), day_of(day, option), number_of(amount, option, zero=True)


def symbol_of(text: str) -> str:
    from strategies.market.symbols import folded

    return folded(text)


def number_of(text: str, option: str, *, zero: bool = False) -> float:
    from math import isfinite

    try:
        number = float(text)
    except ValueError:
        refuse(f"{option}: {text!r} is no number")
    if not isfinite(number) or number < 0 or (number == 0 and not zero):
        refuse(f"{option} was {text}, must be above 0")
    return number


def pair_of(text: str, separator: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(separator)
    if not (left and found and right):
        refuse(f"{option} was {text!r}, must have a {separator} between two texts")
    return left, right


def day_of(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        refuse(f"{option}: {text!r} is no date, must be YYYY-MM-DD")


@contextmanager
def failures() -> Iterator[None]:
    """Turn the room's errors into one sentence and exit code 1."""
    from strategies.errors import DataError, StrategyError

    try:
        yield
    except (DataError, StrategyError) as error:
        refuse(error, code=ExitCode.FAILED)
    except OSError as error:
        refuse(f"{error.filename}: {error.strerror}", code=ExitCode.FAILED)


def fields_of(report: "ImportReport | DerivedReport") -> dict[str, Any]:
    from collections.abc import Mapping

    fields = {name: getattr(report, name) for name in report.__slots__}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}
    return plain | {"served": report.served}


def print_records(rows: list[dict[str, Any]], title: str) -> None:
    """Print rows under their names."""
    if not rows:
        print_line(f"{title}: none")
        return
    columns = [Column(name, text=name in {"detail", "reason"}) for name in rows[0]]
    cells = ([str(row[name]).replace("_", " ") if name == "kind" else row[name] for name in row] for row in rows)
    print_table(columns, list(cells), title=title)
