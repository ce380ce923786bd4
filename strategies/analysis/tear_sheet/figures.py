"""The plots of a tear sheet as SVG.

Owns: how each plot looks: axes with units, sessions in sample in grey behind a shade.
Must not know: pages, files, how anything was measured.
Invariant: the same data give the same bytes, whatever style is configured on the machine; text is never read as
mathematics or markup.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from strategies.analysis.evaluation import drawdown
from strategies.analysis.tear_sheet.data import Segment, TearSheetData
from strategies.analysis.tear_sheet.measures import rolling_mean, rolling_window
from strategies.market.bars import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUT_OF_SAMPLE, IN_SAMPLE, GROSS, LOSS = "#1f3a5f", "#8c8c8c", "#7fa8d1", "#a93226"
#: Features that the plot of importance shows.
FEATURES_SHOWN = 15
#: Longest name on an axis, in characters.
NAME_CHARACTERS = 24
_WIDTH_INCHES = 5.6
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#555555",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    # Names of features and symbols may have any character: `$` would start a formula.
    "text.parse_math": False,
    # Outlines instead of text: the page looks alike wherever it is opened.
    "svg.fonttype": "path",
    "svg.hashsalt": "tear sheet",
}


def draw_figures(data: TearSheetData) -> dict[str, bytes]:
    """Return each plot by name as SVG."""
    plots: dict[str, tuple[float, Callable[[Figure, TearSheetData], None]]] = {
        "ic": (3.7, _ic),
        "quantiles": (2.9, _quantiles),
        "cumulative": (3.1, _cumulative),
        "drawdown": (2.4, _drawdown),
        "turnover": (2.5, _turnover),
        "calibration": (3.9, _calibration),
        "importance": (3.9, _importance),
    }
    with _style():
        return {name: _svg(height, draw, data) for name, (height, draw) in plots.items()}


def printable(text: str) -> str:
    """Return the text with a question mark for each character that has no shape."""
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl  # noqa: PLC0415 - slow, and only reports draw

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _svg(height: float, draw: "Callable[[Figure, TearSheetData], None]", data: TearSheetData) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasSVG(figure)
    draw(figure, data)
    image = io.BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # The document type names a file elsewhere, which nothing needs.
    return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", image.getvalue(), count=1)


def _ic(figure: "Figure", data: TearSheetData) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    for segment in data.segments:
        signal, sessions = segment.result.signal, segment.result.sessions
        window = rolling_window(len(sessions))
        above.plot(sessions, signal.rank_ic, ".", ms=2.5, color=_colour(segment), alpha=0.6)
        below.plot(
            sessions,
            rolling_mean(signal.ic, window),
            color=_colour(segment),
            alpha=0.5,
            lw=1,
            label=f"IC{_side(segment)}",
        )
        below.plot(
            sessions, rolling_mean(signal.rank_ic, window), color=_colour(segment), label=f"rank IC{_side(segment)}"
        )
        mean = segment.figures["rank_ic"]
        if mean is not None:
            below.plot(sessions[[0, -1]], [mean, mean], "--", lw=1, color=_colour(segment), label=f"mean {mean:+.3f}")
    above.set_ylim(-1.05, 1.05)
    above.set_ylabel("rank IC\nof a session")
    below.set_ylabel(f"mean of last\n{rolling_window(len(data.segments[-1].result.sessions))} sessions")
    for axes in (above, below):
        axes.axhline(0, color="#555555", lw=0.8)
    _finish(below, data)
    _shade(above, data, named=False)
    _legend(below, columns=3)


def _quantiles(figure: "Figure", data: TearSheetData) -> None:
    for axes, segment in _beside(figure, data):
        quantiles = segment.quantiles
        if not len(quantiles.mean):
            _write_note(axes, "too few symbols for quantiles")
            continue
        places = np.arange(1, len(quantiles.mean) + 1)
        axes.bar(
            places,
            quantiles.mean * 1e4,
            yerr=np.nan_to_num(quantiles.error) * 1e4,
            color=_colour(segment),
            ecolor="#444444",
            capsize=3,
            width=0.7,
        )
        axes.axhline(0, color="#555555", lw=0.8)
        axes.set_xticks(places)
        axes.set_xlabel("quantile of prediction, highest last")
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("return less mean of its\nsession, bps (±1 s.e.)")


def _cumulative(figure: "Figure", data: TearSheetData) -> None:
    axes = figure.subplots()
    for segment in data.segments:
        performance, sessions = segment.result.performance, segment.result.sessions
        before, after = _compounded(performance.gross_returns), _compounded(performance.net_returns)
        axes.plot(sessions, before, color=_pale(segment), lw=1, label=f"before costs{_side(segment)}")
        axes.plot(sessions, after, color=_colour(segment), label=f"after costs{_side(segment)}")
    axes.axhline(0, color="#555555", lw=0.8)
    axes.set_ylabel("return since start,\n% of capital of one side")
    axes.yaxis.set_major_formatter(_percent())
    _finish(axes, data)
    _legend(axes, columns=2)


def _drawdown(figure: "Figure", data: TearSheetData) -> None:
    axes = figure.subplots()
    for segment in data.segments:
        losses = drawdown(np.nan_to_num(segment.result.performance.net_returns))
        colour = IN_SAMPLE if segment.in_sample else LOSS
        axes.fill_between(segment.result.sessions, losses, 0, color=colour, alpha=0.35, lw=0)
        axes.plot(segment.result.sessions, losses, color=colour, lw=1)
    axes.set_ylabel("below highest wealth,\n% after costs")
    axes.yaxis.set_major_formatter(_percent())
    axes.set_ylim(top=0)
    _finish(axes, data)


def _turnover(figure: "Figure", data: TearSheetData) -> None:
    axes = figure.subplots()
    for segment in data.segments:
        turnover, sessions = segment.result.performance.turnover, segment.result.sessions
        window = rolling_window(len(sessions))
        axes.plot(sessions, turnover, ".", ms=2.5, color=_pale(segment), alpha=0.6)
        axes.plot(
            sessions,
            rolling_mean(turnover, window),
            color=_colour(segment),
            label=f"mean of last {window} sessions{_side(segment)}",
        )
    axes.set_ylabel("weight traded a session\n(1 = capital of one side)")
    axes.set_ylim(bottom=0)
    _finish(axes, data)
    _legend(axes, columns=2)


def _calibration(figure: "Figure", data: TearSheetData) -> None:
    upper, lower = figure.subplots(
        2, len(data.segments), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 1)
    )
    unit, scale = _prediction_unit(data)
    for above, below, segment in zip(upper, lower, data.segments, strict=True):
        calibration, colour = segment.calibration, _colour(segment)
        above.set_title(_title(segment))
        if not len(calibration.rows):
            _write_note(above, "no known outcome")
            continue
        predicted, realised = calibration.predicted * scale, calibration.realised * 1e4
        above.errorbar(
            predicted, realised, yerr=np.nan_to_num(calibration.error) * 1e4, fmt="o", ms=4, capsize=3, color=colour
        )
        if data.bundle.prediction_kind == "return":
            ends = predicted[[0, -1]]
            above.plot(ends, ends, "--", lw=1, color="#555555", label="predicted = realised")
            above.legend(loc="best", handlelength=1.4)
        above.axhline(0, color="#555555", lw=0.8)
        above.set_ylabel("mean return that\ncame, bps (±1 s.e.)")
        below.vlines(predicted, 0, calibration.rows, color=colour, lw=3)
        below.set_ylim(bottom=0)
        below.set_ylabel("rows")
        below.set_xlabel(f"mean prediction of bin{unit}")


def _importance(figure: "Figure", data: TearSheetData) -> None:
    shown = data.importance[:FEATURES_SHOWN]
    gain, splits = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(shown))[::-1]
    gain.barh(places, [100 * each.gain_share for each in shown], color=OUT_OF_SAMPLE)
    splits.barh(places, [each.splits for each in shown], color=GROSS)
    gain.set_yticks(places, [_cut(each.name) for each in shown])
    gain.set_xlabel("share of gain, %")
    splits.set_xlabel("splits")
    for axes in (gain, splits):
        axes.grid(visible=False, axis="y")


def _beside(figure: "Figure", data: TearSheetData) -> "Iterator[tuple[Axes, Segment]]":
    for axes, segment in zip(
        figure.subplots(1, len(data.segments), squeeze=False, sharey=True)[0], data.segments, strict=True
    ):
        axes.set_title(_title(segment))
        yield axes, segment


def _finish(axes: "Axes", data: TearSheetData) -> None:
    """Shade what is in sample, and label time."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    _shade(axes, data, named=True)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("session on which the book was formed")


def _shade(axes: "Axes", data: TearSheetData, *, named: bool) -> None:
    for segment in data.segments:
        if segment.in_sample:
            axes.axvspan(*segment.result.sessions[[0, -1]], color="#f0e6d2", alpha=0.6, lw=0, zorder=0)
            if named:
                axes.annotate("in sample", (0.01, 0.03), xycoords="axes fraction", fontsize=8, color="#7a5c1e")


def _legend(axes: "Axes", columns: int = 1) -> None:
    # Above the axes, where no line runs through it.
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    axes.legend(**place, ncols=columns, handlelength=1.4, columnspacing=1.0)


def _compounded(returns: FloatArray) -> FloatArray:
    """A session without a book earns nothing."""
    wealth: FloatArray = np.cumprod(1.0 + np.nan_to_num(returns), dtype=np.float64)
    return wealth - 1.0


def _percent() -> Callable[[float, float], str]:
    return lambda value, _: f"{100 * value:g}"


def _prediction_unit(data: TearSheetData) -> tuple[str, float]:
    kind = data.bundle.prediction_kind
    return (", bps", 1e4) if kind == "return" else (f" ({kind})", 1.0)


def _colour(segment: Segment) -> str:
    return IN_SAMPLE if segment.in_sample else OUT_OF_SAMPLE


def _pale(segment: Segment) -> str:
    return "#c4c4c4" if segment.in_sample else GROSS


def _title(segment: Segment) -> str:
    return "In sample" if segment.in_sample else "Out of sample"


def _side(segment: Segment) -> str:
    return ", in sample" if segment.in_sample else ""


def _write_note(axes: "Axes", note: str) -> None:
    axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _cut(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= NAME_CHARACTERS else f"{shown[: NAME_CHARACTERS - 1]}…"
