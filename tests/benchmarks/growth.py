"""How cost grows with symbols, sessions and the window: measured, fitted, drawn.

Owns: the three sweeps, the exponent of each, the plot.
Must not know: goals, rivals.
Invariant: an exponent is the slope of a straight line through the logarithms of the larger half of a sweep, where
what a call costs at least no longer counts.
"""

import io
from dataclasses import dataclass
from functools import partial

import numpy as np

from strategies.expressions.feature_sets import FeatureSet, define, feature_set
from strategies.market.bars import Panel
from tests.benchmarks.material import window_of
from tests.benchmarks.timing import timed

SYMBOLS = (1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000)
SESSIONS = (1, 2, 5, 10, 30, 60, 125, 250, 500, 1250)
WINDOWS = (5, 10, 20, 30, 60, 120, 250)
#: Symbols of the sweeps over sessions and windows.
CROSS_SECTION = 100
#: One of each family of windows; Quantile keeps its window sorted, so it is told apart.
FAMILIES = {
    "sums, trend, extremes, correlation": (
        "Mean($close, {n})",
        "Std($close, {n})",
        "Slope($close, {n})",
        "Max($high, {n})",
        "Corr($close, $volume, {n})",
    ),
    "rank": ("Rank($close, {n})",),
    "quantile": ("Quantile($close, {n}, 0.8)",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One quantity varied, all else kept."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    #: Median of each size.
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Return p of seconds ~ size**p, over the larger half of the sizes."""
        half = len(self.sizes) // 2
        return float(np.polyfit(np.log(self.sizes[half:]), np.log(self.seconds[half:]), 1)[0])


def sweep_all(panel: Panel, *, threads: int) -> tuple[Sweep, ...]:
    """Measure every sweep."""
    features = feature_set("alpha158")
    families = tuple(_over_windows(panel, name, texts, threads) for name, texts in FAMILIES.items())
    return (_over_symbols(panel, features, threads), _over_sessions(panel, features, threads), *families)


def draw(sweeps: tuple[Sweep, ...]) -> bytes:
    """Return the plot as PNG: one panel an axis, both scales logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow, and only this draws
    from matplotlib.figure import Figure  # noqa: PLC0415

    axes = tuple(dict.fromkeys(sweep.axis for sweep in sweeps))
    figure = Figure(figsize=(4 * len(axes), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        for sweep in sweeps:
            if sweep.axis == axis:
                milliseconds = [seconds * 1e3 for seconds in sweep.seconds]
                place.loglog(sweep.sizes, milliseconds, "o-", ms=3, label=f"{sweep.name}: n^{sweep.exponent:.2f}")
        place.set_xlabel(axis)
        place.set_ylabel("ms")
        place.grid(visible=True, which="both", alpha=0.2)
        place.legend(fontsize=7)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _over_symbols(panel: Panel, features: FeatureSet, threads: int) -> Sweep:
    windows = (window_of(panel, size, features.lookback) for size in SYMBOLS)
    seconds = tuple(timed(partial(features.evaluate, window, threads=threads)).median for window in windows)
    return Sweep(name="Alpha158, last session", axis="symbols", sizes=SYMBOLS, seconds=seconds)


def _over_sessions(panel: Panel, features: FeatureSet, threads: int) -> Sweep:
    sizes = tuple(size for size in SESSIONS if size <= panel.sessions.size)
    seconds = tuple(_range_seconds(panel, features, size, threads) for size in sizes)
    return Sweep(name=f"Alpha158, {CROSS_SECTION} symbols", axis="sessions", sizes=sizes, seconds=seconds)


def _over_windows(panel: Panel, name: str, texts: tuple[str, ...], threads: int) -> Sweep:
    seconds = []
    for size in WINDOWS:
        features = define(name, [(str(k), text.format(n=size)) for k, text in enumerate(texts)])
        seconds.append(_range_seconds(panel, features, 250, threads))
    return Sweep(name=name, axis="window", sizes=WINDOWS, seconds=tuple(seconds))


def _range_seconds(panel: Panel, features: FeatureSet, sessions: int, threads: int) -> float:
    first, last = (day.astype(object) for day in panel.sessions[[-min(sessions, panel.sessions.size), -1]])
    symbols = panel.symbols[:CROSS_SECTION]
    return timed(lambda: features.evaluate_range(panel, first, last, symbols, threads=threads), least=3).median
