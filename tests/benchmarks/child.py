"""One measurement in a process of its own: memory, first calls, and what must not touch the parent.

Owns: the measurements by name, `python -m tests.benchmarks.child NAME JSON`, one line of JSON as the answer.
Must not know: goals, pages.
Invariant: nothing is imported before the clock of a measurement starts but what stands above it.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from strategies.market.bars import Panel

    Query = Callable[[Sequence[str], str | None, str | None], pd.DataFrame]

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: Written to `CLEAR_REFS`: forget the highest memory so far.
FORGET_PEAK = "5"


def memory(name: str) -> int:
    """Return `VmRSS` (now) or `VmHWM` (highest) of this process in bytes."""
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{STATUS} has no {name}")


def backfill(data_dir: str, threads: int) -> dict[str, float]:
    """Compute all of Alpha158 twice; say how far memory rose above what it was, and the size of the output."""
    from strategies.expressions.feature_sets import feature_set  # noqa: PLC0415
    from tests.benchmarks.material import panel_of  # noqa: PLC0415

    panel, features = panel_of(Path(data_dir)), feature_set("alpha158")
    first, last = (day.astype(object) for day in panel.sessions[[0, -1]])
    features.evaluate_range(panel, last, last, threads=threads)
    before = memory("VmRSS")
    CLEAR_REFS.write_text(FORGET_PEAK, encoding="ascii")
    values = features.evaluate_range(panel, first, last, threads=threads)
    return {"output": values.nbytes, "rise": memory("VmHWM") - before, "peak": memory("VmHWM")}


def first_call(data_dir: str) -> dict[str, float]:
    """Import, define and evaluate Alpha158 for five symbols: the seconds of each, the second call beside the first."""
    begun = time.perf_counter()
    from strategies.expressions.feature_sets import feature_set  # noqa: PLC0415

    imported = time.perf_counter()
    features = feature_set("alpha158")
    defined = time.perf_counter()
    from tests.benchmarks.material import panel_of, window_of  # noqa: PLC0415

    window = window_of(panel_of(Path(data_dir)), 5, features.lookback)
    ready = time.perf_counter()
    features.evaluate(window)
    once = time.perf_counter()
    features.evaluate(window)
    twice = time.perf_counter()
    return {
        "import": imported - begun,
        "define": defined - imported,
        "first": once - ready,
        "second": twice - once,
    }


def load_snapshot(data_dir: str) -> dict[str, float]:
    """Load a snapshot: seconds, highest memory, and the size of what was loaded."""
    from strategies.market.snapshots import latest_snapshot  # noqa: PLC0415
    from tests.benchmarks.material import panel_of  # noqa: PLC0415

    latest_snapshot(Path(data_dir))
    begun = time.perf_counter()
    panel = panel_of(Path(data_dir))
    seconds = time.perf_counter() - begun
    size = sum(values.nbytes for values in panel.fields.values())
    return {"seconds": seconds, "peak": memory("VmHWM"), "size": size, "symbols": len(panel.symbols)}


def import_snapshot(source: str, data_dir: str, run_date: str) -> dict[str, float]:
    """Import a source: seconds, processor time, highest memory of the whole process."""
    from datetime import date  # noqa: PLC0415

    from strategies.market.importing import import_bars  # noqa: PLC0415

    begun, processor = time.perf_counter(), time.process_time()
    import_bars(Path(source), Path(data_dir), run_date=date.fromisoformat(run_date))
    taken, spent = time.perf_counter() - begun, time.process_time() - processor
    return {"seconds": taken, "processor": spent, "peak": memory("VmHWM")}


def daily_round(data_dir: str, source: str) -> dict[str, float]:
    """Append a session, and take it into the panel that serves: seconds and processor time of each."""
    from datetime import timedelta  # noqa: PLC0415

    from strategies.market.appending import append_bars  # noqa: PLC0415
    from strategies.market.loading import Loading  # noqa: PLC0415
    from strategies.market.snapshots import latest_snapshot  # noqa: PLC0415

    snapshot = latest_snapshot(Path(data_dir))
    loading = Loading(data_dir=Path(data_dir), calendar=snapshot.open_calendar())
    loaded = loading.newer(None)
    begun, processor = time.perf_counter(), time.process_time()
    append_bars(Path(source), Path(data_dir), run_date=snapshot.date + timedelta(days=1))
    append, append_processor = time.perf_counter() - begun, time.process_time() - processor
    begun, processor = time.perf_counter(), time.process_time()
    taken = loading.newer(loaded[1] if loaded else None)
    take, take_processor = time.perf_counter() - begun, time.process_time() - processor
    if taken is None:
        raise RuntimeError("the appended session is not served")
    return {"append": append, "append_processor": append_processor, "take": take, "take_processor": take_processor}


def qlib_last(data_dir: str, symbols: int, repeats: int) -> dict[str, float]:
    """Let Qlib compute Alpha158 of the last session: seconds a query, bars read already where its caches hold them."""
    ask, panel = _qlib(data_dir, kernels=1)
    chosen, last = panel.symbols[:symbols], panel.sessions[-1]
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        ask(chosen, str(last), str(last))
        seconds.append(time.perf_counter() - begun)
    return {"seconds": sorted(seconds)[len(seconds) // 2], "runs": repeats}


def qlib_last360(data_dir: str, symbols: int) -> dict[str, float]:
    """Let Qlib compute Alpha360 of the last session, once."""
    ask, panel = _qlib(data_dir, kernels=1, name="alpha360")
    begun = time.perf_counter()
    ask(panel.symbols[:symbols], str(panel.sessions[-1]), str(panel.sessions[-1]))
    return {"seconds": time.perf_counter() - begun}


def qlib_range(data_dir: str, kernels: int) -> dict[str, float]:
    """Let Qlib compute all of Alpha158 once, in this many processes; memory is that of this one."""
    ask, panel = _qlib(data_dir, kernels=kernels)
    before = memory("VmRSS")
    CLEAR_REFS.write_text(FORGET_PEAK, encoding="ascii")
    begun = time.perf_counter()
    frame = ask(panel.symbols, None, None)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rise": memory("VmHWM") - before, "output": frame.shape[0] * frame.shape[1] * 4}


def _qlib(data_dir: str, *, kernels: int, name: str = "alpha158") -> "tuple[Query, Panel]":
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")  # of Qlib and pandas, about each other
    from strategies.alpha_baseline.data_loader import T1DataProvider  # noqa: PLC0415
    from strategies.expressions.feature_sets import feature_set  # noqa: PLC0415

    provider = T1DataProvider(data_dir)
    provider.init_qlib(kernels=kernels)
    texts = feature_set(name).expressions
    from qlib.data import D  # noqa: PLC0415
    from qlib.data.cache import H  # noqa: PLC0415

    def ask(symbols: Sequence[str], start: str | None, end: str | None) -> "pd.DataFrame":
        H["f"].clear()
        frame: pd.DataFrame = D.features(list(symbols), list(texts), start_time=start, end_time=end)
        return frame

    return ask, provider.panel()


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    each.__name__: each
    for each in (
        backfill,
        daily_round,
        first_call,
        import_snapshot,
        load_snapshot,
        qlib_last,
        qlib_last360,
        qlib_range,
    )
}


def main() -> None:
    """Run the measurement that the command line names."""
    answer = MEASUREMENTS[sys.argv[1]](**json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
