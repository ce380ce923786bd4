"""The engine's figures, and its rivals' beside them.

Owns: which work is measured, its goal, on how many threads.
Must not know: pages, servers.
Invariant: a rival gets the same bars and the same machine, at the same time of day.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from strategies.expressions.feature_sets import FeatureSet, feature_set
from strategies.market.bars import Panel
from tests.benchmarks.children import ChildFailed, measured
from tests.benchmarks.figures import Figure, spell_bytes, spell_seconds
from tests.benchmarks.kunquant import KunQuantAbsent, KunQuantAlpha158
from tests.benchmarks.material import panel_of, window_of
from tests.benchmarks.timing import Timing, timed

#: Symbols of the last session to seconds they may take, on two threads.
LAST_GOALS = {5: 0.5e-3, 500: 3e-3, 5000: 30e-3}
LAST360_GOAL = 2e-3
RANGE_GOAL, MEMORY_GOAL = 30.0, 1.5
LOAD_SECONDS, LOAD_BYTES = 10.0, 1.5 * 2**30
THREADS = 2
#: Symbols of Qlib's queries; it takes seconds for some hundreds.
QLIB_SYMBOLS = {5: 5, 50: 3, 500: 1}
#: Times that Qlib computes the range, the quietest of which counts.
QLIB_RANGES = 2
#: It computes the whole snapshot; the row of about as many symbols shows it.
KUNQUANT_SYMBOLS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """What stands beside the engine."""

    qlib: bool
    kunquant: KunQuantAlpha158 | str


def find_rivals(*, qlib: bool) -> Rivals:
    """Return who can be measured here; KunQuant's Alpha158 is compiled, which takes some twenty seconds."""
    try:
        return Rivals(qlib=qlib, kunquant=KunQuantAlpha158())
    except KunQuantAbsent as absent:
        return Rivals(qlib=qlib, kunquant=str(absent))


def engine_figures(data_dir: Path, folder: Path, rivals: Rivals) -> Iterator[Figure]:
    """Yield the figures of features, one by one."""
    panel, features = panel_of(data_dir), feature_set("alpha158")
    for symbols in (5, 50, 500, 5000):
        yield _last(panel, features, symbols, rivals, data_dir)
    yield _last360(panel, rivals, data_dir)
    yield _range(panel, features, rivals, data_dir)
    yield _memory(data_dir)
    yield from _first_calls(data_dir, folder / "numba")


def loading_figure(data_dir: Path, symbols: int, sessions: int) -> Figure:
    """Return what it takes to load a snapshot that holds as many symbols as one may have."""
    answer = measured("load_snapshot", {"data_dir": str(data_dir)})
    return Figure(
        work=f"load a snapshot, {symbols:,} symbols by {sessions:,} sessions",
        value=f"{spell_seconds(answer['seconds'])}, peak {spell_bytes(answer['peak'])}",
        goal=f"{LOAD_SECONDS:.0f} s, {spell_bytes(LOAD_BYTES)}",
        met=answer["seconds"] <= LOAD_SECONDS and answer["peak"] <= LOAD_BYTES,
    )


def _last(panel: Panel, features: FeatureSet, symbols: int, rivals: Rivals, data_dir: Path) -> Figure:
    window = window_of(panel, symbols, features.lookback)
    one, two = timed(lambda: features.evaluate(window)), timed(lambda: features.evaluate(window, threads=THREADS))
    qlib = ""
    if rivals.qlib and symbols in QLIB_SYMBOLS:
        qlib = _asked("qlib_last", data_dir, symbols=symbols, repeats=QLIB_SYMBOLS[symbols])
    kunquant = ""
    if symbols == KUNQUANT_SYMBOLS:
        kunquant = _spell_kunquant(rivals, _kunquant_seconds(rivals, panel, features.lookback), features.lookback)
    return Figure(
        work=f"Alpha158, last session, {symbols:,} symbols",
        value=_both(one, two),
        goal=spell_seconds(LAST_GOALS[symbols]) if symbols in LAST_GOALS else "",
        met=two.median <= LAST_GOALS[symbols] if symbols in LAST_GOALS else None,
        qlib=qlib,
        kunquant=kunquant,
    )


def _last360(panel: Panel, rivals: Rivals, data_dir: Path) -> Figure:
    features, symbols = feature_set("alpha360"), 500
    window = window_of(panel, symbols, features.lookback)
    one, two = timed(lambda: features.evaluate(window)), timed(lambda: features.evaluate(window, threads=THREADS))
    return Figure(
        work=f"Alpha360, last session, {symbols} symbols",
        value=_both(one, two),
        goal=spell_seconds(LAST360_GOAL),
        met=two.median <= LAST360_GOAL,
        qlib=_asked("qlib_last360", data_dir, symbols=symbols) if rivals.qlib else "",
    )


def _range(panel: Panel, features: FeatureSet, rivals: Rivals, data_dir: Path) -> Figure:
    first, last = (day.astype(object) for day in panel.sessions[[0, -1]])
    one = timed(lambda: features.evaluate_range(panel, first, last), warm_ups=1, least=1, most=3)
    two = timed(lambda: features.evaluate_range(panel, first, last, threads=THREADS), warm_ups=1, least=1, most=3)
    qlib, kunquant = _qlib_range(rivals, data_dir), _kunquant_seconds(rivals, panel, panel.sessions.size)
    met = None
    if qlib is not None:
        met = qlib / two.median >= RANGE_GOAL and (kunquant is None or two.median <= kunquant[0])
    return Figure(
        work=f"Alpha158, {len(panel.symbols)} symbols by {panel.sessions.size:,} sessions",
        value=_both(one, two),
        goal=f"{RANGE_GOAL:.0f} x Qlib, KunQuant's time",
        met=met,
        qlib=f"{spell_seconds(qlib)} in {THREADS} processes, {qlib / two.median:.0f} x" if qlib else "",
        kunquant=_spell_kunquant(rivals, kunquant, panel.sessions.size),
    )


def _memory(data_dir: Path) -> Figure:
    answer = measured("backfill", {"data_dir": str(data_dir), "threads": THREADS})
    ratio = answer["rise"] / answer["output"]
    return Figure(
        work="peak memory of that range, over what the process held before",
        value=f"{spell_bytes(answer['rise'])}, {ratio:.2f} x the output",
        goal=f"{MEMORY_GOAL} x the output",
        met=ratio <= MEMORY_GOAL,
    )


def _first_calls(data_dir: Path, cache: Path) -> Iterator[Figure]:
    for state in ("cold", "warm"):
        answer = measured("first_call", {"data_dir": str(data_dir)}, cache=cache)
        yield Figure(
            work=f"first call in a new process, {state} cache, 5 symbols",
            value=spell_seconds(answer["first"])
            + f" (import {spell_seconds(answer['import'])}, define {spell_seconds(answer['define'])},"
            + f" second call {spell_seconds(answer['second'])})",
        )


def _both(one: Timing, two: Timing) -> str:
    return (
        f"{spell_seconds(two.median)} on {THREADS} threads, {spell_seconds(one.median)} on 1"
        f" (processor {spell_seconds(one.processor)})"
    )


def _asked(name: str, data_dir: Path, **arguments: int) -> str:
    try:
        return spell_seconds(measured(name, {"data_dir": str(data_dir), **arguments})["seconds"])
    except ChildFailed as failure:
        return f"failed: {failure}"


def _qlib_range(rivals: Rivals, data_dir: Path) -> float | None:
    if not rivals.qlib:
        return None
    answers = [measured("qlib_range", {"data_dir": str(data_dir), "kernels": THREADS}) for _ in range(QLIB_RANGES)]
    return min(answer["seconds"] for answer in answers)


def _kunquant_seconds(rivals: Rivals, panel: Panel, sessions: int) -> tuple[float, int] | None:
    if isinstance(rivals.kunquant, str):
        return None
    call: Callable[[], object]
    call, symbols = rivals.kunquant.over(panel, sessions, THREADS)
    return timed(call, warm_ups=1, least=1, most=10).median, symbols


def _spell_kunquant(rivals: Rivals, found: tuple[float, int] | None, sessions: int) -> str:
    if found is None:
        return str(rivals.kunquant)
    return f"{spell_seconds(found[0])} for {found[1]} by {sessions:,}"
