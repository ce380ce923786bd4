"""A bench of injected defects: what the rules hold back, beside what others' checks find.

Run: `python -m tests.benchmarks.defects [FOLDER] [--seed N] [--symbols N] [--rounds N]`; the table goes to stdout.
Bars are read from a folder of one Parquet file a symbol, else built.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from strategies.market.bars import BoolArray
from strategies.market.checks import Gathering, run_checks
from strategies.market.readers import RawBars
from strategies.market.rules import Rules
from strategies.market.verdicts import Judged, Settled, judged
from tests.benchmarks.others import PRICES, Health, Repair, health_check, price_repair
from tests.support.market import make_bars, raw_rows, us500, xnys

#: Rows that must be before a defect.
WARM_UP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One kind of defect."""

    name: str
    #: Changes a frame at a row and returns the rows that are wrong.
    inject: Callable[[pd.DataFrame, int, np.random.Generator], list[int]]
    #: Rows that a block has at least room for.
    room: int = 1
    #: Whether it lasts: then no bar before it may be served beside one after it, from the second row on for volumes.
    lasts: bool = False


def _block(length: int) -> Callable[[pd.DataFrame, int], list[int]]:
    return lambda frame, at: list(range(at, min(at + length, len(frame))))


def _scaled(factor: float, length: int, columns: list[str] = PRICES) -> Callable[..., list[int]]:
    def inject(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
        rows = _block(length)(frame, at)
        frame.loc[rows, columns] = frame.loc[rows, columns] * factor
        return rows

    return inject


def _split(ratio: float) -> Callable[..., list[int]]:
    def inject(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
        frame.loc[at:, PRICES] = frame.loc[at:, PRICES] / ratio
        frame.loc[at:, "volume"] = frame.loc[at:, "volume"] * ratio
        return [at]

    return inject


def _set(column: str, value: float) -> Callable[..., list[int]]:
    def inject(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
        frame.loc[at, column] = value
        return [at]

    return inject


def _repeat(back: int) -> Callable[..., list[int]]:
    def inject(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
        columns = [*PRICES, "volume"]
        frame.loc[at, columns] = frame.loc[at - back, columns]
        return [at]

    return inject


def _swap(one: str, other: str) -> Callable[..., list[int]]:
    def inject(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
        frame.loc[at, [one, other]] = frame.loc[at, [other, one]].to_numpy()
        return [at]

    return inject


def _lots(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
    at = min(at, len(frame) - 2)
    frame.loc[at:, "volume"] = frame.loc[at:, "volume"] / 100
    return list(range(at + 1, len(frame)))


def _weekend(frame: pd.DataFrame, at: int, _rng: np.random.Generator) -> list[int]:
    days = frame["date"].to_numpy().copy()
    # Day 0 of the epoch was a Thursday.
    days[at] += np.timedelta64(5 - (int(days[at].astype("datetime64[D]").astype(np.int64)) + 3) % 7, "D")
    frame["date"] = days
    return [at]


KINDS: tuple[Defect, ...] = (
    Defect(name="prices x 100, one row", inject=_scaled(100, 1)),
    Defect(name="prices / 100, one row", inject=_scaled(0.01, 1)),
    Defect(name="prices x 100, 3 rows", inject=_scaled(100, 3), room=3),
    Defect(name="prices / 100, 10 rows", inject=_scaled(0.01, 10), room=10),
    Defect(name="prices x 1,000, 5 rows", inject=_scaled(1000, 5), room=5),
    Defect(name="prices / 100 from here on", inject=_scaled(0.01, 10_000), lasts=True),
    Defect(name="currency x 83 from here on", inject=_scaled(83, 10_000), lasts=True),
    Defect(name="high x 100", inject=_scaled(100, 1, ["high"])),
    Defect(name="high x 10", inject=_scaled(10, 1, ["high"])),
    Defect(name="low / 100", inject=_scaled(0.01, 1, ["low"])),
    Defect(name="low at 0.01", inject=_set("low", 0.01)),
    Defect(name="close x 10", inject=_scaled(10, 1, ["close"])),
    Defect(name="split 2:1 not applied", inject=_split(2.0)),
    Defect(name="split 3:2 not applied", inject=_split(1.5)),
    Defect(name="split 5:1 not applied", inject=_split(5.0)),
    Defect(name="split 20:1 not applied", inject=_split(20.0)),
    Defect(name="split 1:10 not applied", inject=_split(0.1)),
    Defect(name="yesterday's bar again", inject=_repeat(1)),
    Defect(name="the bar of three days ago again", inject=_repeat(3)),
    Defect(name="high and low swapped", inject=_swap("high", "low")),
    Defect(name="a price missing", inject=_set("open", np.nan)),
    Defect(name="a price of 0", inject=_set("low", 0.0)),
    Defect(name="volume missing", inject=_set("volume", np.nan)),
    Defect(name="volume in lots from here on, but its first day", inject=_lots, room=3, lasts=True),
    Defect(name="a bar on a Saturday", inject=_weekend),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What others' checks find in a frame."""

    health: Health
    repair: Repair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the defects of one kind."""

    name: str
    injected: int
    held: int
    #: Injected on the last row, and those of them that are held back.
    last: int
    last_held: int
    #: Symbols that Qlib's check names, and defects of which yfinance's repair changes every row; None: not measured.
    qlib: int
    yfinance: int | None


def clean_frames(folder: Path | None, symbols: int) -> dict[str, pd.DataFrame]:
    """Return bars that no rule objects to, by symbol."""
    if folder is None:
        return {f"S{number:03d}": make_bars(sessions=600, seed=number) for number in range(symbols)}
    frames = {}
    for path in sorted(folder.glob("*.parquet")):
        frame = pd.read_parquet(path)[["date", *PRICES, "volume"]].astype({"volume": float})
        frame["date"] = pd.to_datetime(frame["date"])
        result = verdict(frame)
        if len(frame) > 2 * WARM_UP and not any(result.flags.get("unexplained_move", ())) and not result.unsettled:
            bad = np.logical_or.reduce([np.zeros(len(frame), bool), *result.flags.values()])
            frames[path.stem] = frame[~bad].reset_index(drop=True)
        if len(frames) == symbols:
            break
    return frames


def verdict(frame: pd.DataFrame) -> Judged:
    """Return what the rules say of a frame."""
    return judged(raw_rows(frame), Settled(calendar=xnys(), run_date=pd.Timestamp("2030-01-02").date(), rules=Rules()))


def held_rows(frame: pd.DataFrame) -> np.ndarray:
    """Return the rows that are held back, or come after an unsettled step: a symbol that is not priced."""
    held: np.ndarray = np.logical_or.reduce([np.zeros(len(frame), bool), *verdict(frame).flags.values()])
    return held


def measure(
    frames: Mapping[str, pd.DataFrame], rng: np.random.Generator, rounds: int, others: Others
) -> Iterator[Result]:
    """Return what became of each kind, injected at random places and on the last row."""
    names = sorted(frames)
    sound = {name: held_rows(frame) for name, frame in frames.items()}
    for kind in KINDS:
        counts = {"held": 0, "last": 0, "last_held": 0, "qlib": 0, "tried": 0, "yfinance": 0}
        for turn in range(rounds):
            name = names[int(rng.integers(len(names)))]
            frame = frames[name].copy()
            on_last = turn % 4 == 0
            at = len(frame) - 1 if on_last else int(rng.integers(WARM_UP, len(frame) - kind.room - 1))
            if sound[name][at]:
                continue
            rows = kind.inject(frame, at, rng)
            held = held_rows(frame)
            caught = bool(held[rows].all() or (kind.lasts and held[: rows[0]].all()))
            counts["held"] += caught
            counts["last"] += on_last
            counts["last_held"] += on_last and caught
            counts["qlib"] += others.health(frame)
            counts["yfinance"] += others.repair is not None and _repaired(others.repair(frame), rows)
            counts["tried"] += 1
        yield Result(
            name=kind.name,
            injected=counts["tried"],
            held=counts["held"],
            last=counts["last"],
            last_held=counts["last_held"],
            qlib=counts["qlib"],
            yfinance=None if others.repair is None else counts["yfinance"],
        )


def _repaired(changed: BoolArray, rows: list[int]) -> bool:
    """Return whether every wrong row was changed, or every row before them, by which they are right again."""
    return bool(changed[rows].all() or (rows[0] > 0 and changed[: rows[0]].all()))


def false_holds(frames: Mapping[str, pd.DataFrame]) -> tuple[int, int, float]:
    """Return rows held back of clean bars, all rows, and the processor seconds that judging and checking took."""
    rows: dict[str, RawBars] = {name: raw_rows(frame, name) for name, frame in frames.items()}
    settled = Settled(calendar=xnys(), run_date=pd.Timestamp("2030-01-02").date(), rules=Rules())
    begun, held, gathering = time.process_time(), 0, Gathering(xnys().sessions)
    for name, one in rows.items():
        result = judged(one, settled)
        held += len(one.rows) - len(result.sessions)
        gathering.add(name, result.sessions, result.columns)
    run_checks(gathering.closes(), Rules())
    return held, sum(len(one.rows) for one in rows.values()), time.process_time() - begun


def page(frames: Mapping[str, pd.DataFrame], seed: int, rounds: int, others: Others) -> str:
    """Return the table of docs/data.md."""
    rng = np.random.default_rng(seed)
    lines = [
        f"Seed {seed}; {len(frames)} symbols, {rounds} defects of each kind, every fourth on the last session.",
        "",
        "| defect | held back | on the last session | Qlib's check names the symbol | yfinance repairs the rows |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one.name} | {one.held} of {one.injected} ({one.held / one.injected:.1%}) | "
        f"{one.last_held} of {one.last} | {one.qlib / one.injected:.0%} | {_share(one.yfinance, one.injected)} |"
        for one in measure(frames, rng, rounds, others)
    ]
    held, rows, seconds = false_holds(frames)
    named = sum(others.health(frame) for frame in frames.values())
    changed = None if others.repair is None else sum(bool(others.repair(frame).any()) for frame in frames.values())
    lines += [
        f"| nothing | {held} of {rows} bars | | {named / len(frames):.0%} | {_share(changed, len(frames))} |",
        "",
        f"Judging and checking these {rows} bars took {seconds:.2f} s of processor time.",
    ]
    return "\n".join(lines) + "\n"


def _share(count: int | None, of: int) -> str:
    return "not installed" if count is None else f"{count / of:.0%}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="Folder of Parquet files; default the shared bars.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--symbols", type=int, default=505)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--built", action="store_true", help="Use built bars.")
    parser.add_argument("--qlib-script", type=Path, help="scripts/check_data_health.py of a checkout of Qlib.")
    asked = parser.parse_args()
    folder = None if asked.built else asked.folder or us500()
    others = Others(health=health_check(asked.qlib_script), repair=price_repair())
    print(page(clean_frames(folder, asked.symbols), asked.seed, asked.rounds, others), end="")  # noqa: T201


if __name__ == "__main__":
    main()
