"""The plots of a tear sheet as SVG.

Owns: how each plot looks: axes with units, sessions that training has seen in grey behind a shade.
Must not know: pages, files, how anything was measured.
Invariant: the same study gives the same bytes, whatever style is configured on the machine; text is never read as
mathematics or markup.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from strategies.analysis.evaluation import drawdown
from strategies.analysis.tear_sheet.data import Part, Study
from strategies.analysis.tear_sheet.measures import rolling_mean
from strategies.market.bars import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNSEEN, SEEN, GROSS, LOSS = "#1f3a5f", "#8c8c8c", "#7fa8d1", "#a93226"
#: Sessions of a rolling mean, a quarter of a year; shorter where the period is.
ROLLING_SESSIONS = 63
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
    # Names of features and symbols may hold any character: `$` would start a formula.
    "text.parse_math": False,
    # Outlines instead of text: the page looks alike wherever it is opened.
    "svg.fonttype": "path",
    "svg.hashsalt": "tear sheet",
}


def draw_figures(study: Study) -> dict[str, bytes]:
    """Return each plot by name as SVG."""
    plots: dict[str, tuple[float, Callable[[Figure, Study], None]]] = {
        "ic": (3.7, _ic),
        "quantiles": (2.9, _quantiles),
        "cumulative": (3.1, _cumulative),
        "drawdown": (2.4, _drawdown),
        "turnover": (2.5, _turnover),
        "calibration": (3.9, _calibration),
        "importance": (3.9, _importance),
    }
    with _style():
        return {name: _svg(height, draw, study) for name, (height, draw) in plots.items()}


def rolling_window(sessions: int) -> int:
    """Return over how many sessions rolling means of a period go."""
    return min(ROLLING_SESSIONS, max(5, sessions // 4))


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


def _svg(height: float, draw: "Callable[[Figure, Study], None]", study: Study) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasSVG(figure)
    draw(figure, study)
    image = io.BytesIO()
    figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # The document type names a file elsewhere, which nothing needs.
    return re.sub(rb"<!DOCTYPE[^>]*>\s*", b"", image.getvalue(), count=1)


def _ic(figure: "Figure", study: Study) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    for part in study.parts:
        signal, sessions = part.held.signal, part.held.sessions
        window = rolling_window(len(sessions))
        above.plot(sessions, signal.rank_ic, ".", ms=2.5, color=_colour(part), alpha=0.6)
        below.plot(
            sessions, rolling_mean(signal.ic, window), color=_colour(part), alpha=0.5, lw=1, label=f"IC{_side(part)}"
        )
        below.plot(sessions, rolling_mean(signal.rank_ic, window), color=_colour(part), label=f"rank IC{_side(part)}")
        mean = part.figures["rank_ic"]
        if mean is not None:
            below.plot(sessions[[0, -1]], [mean, mean], "--", lw=1, color=_colour(part), label=f"mean {mean:+.3f}")
    above.set_ylim(-1.05, 1.05)
    above.set_ylabel("rank IC\nof a session")
    below.set_ylabel(f"mean of last\n{rolling_window(len(study.parts[-1].held.sessions))} sessions")
    for axes in (above, below):
        axes.axhline(0, color="#555555", lw=0.8)
    _finish(below, study)
    _shade(above, study, named=False)
    _legend(below, columns=3)


def _quantiles(figure: "Figure", study: Study) -> None:
    for axes, part in _beside(figure, study):
        quantiles = part.quantiles
        if not len(quantiles.mean):
            _say(axes, "too few symbols for quantiles")
            continue
        places = np.arange(1, len(quantiles.mean) + 1)
        axes.bar(
            places,
            quantiles.mean * 1e4,
            yerr=np.nan_to_num(quantiles.error) * 1e4,
            color=_colour(part),
            ecolor="#444444",
            capsize=3,
            width=0.7,
        )
        axes.axhline(0, color="#555555", lw=0.8)
        axes.set_xticks(places)
        axes.set_xlabel("quantile of prediction, highest last")
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("return less mean of its\nsession, bps (±1 s.e.)")


def _cumulative(figure: "Figure", study: Study) -> None:
    axes = figure.subplots()
    for part in study.parts:
        performance, sessions = part.held.performance, part.held.sessions
        before, after = _compounded(performance.gross_returns), _compounded(performance.net_returns)
        axes.plot(sessions, before, color=_pale(part), lw=1, label=f"before costs{_side(part)}")
        axes.plot(sessions, after, color=_colour(part), label=f"after costs{_side(part)}")
    axes.axhline(0, color="#555555", lw=0.8)
    axes.set_ylabel("return since start,\n% of capital of one side")
    axes.yaxis.set_major_formatter(_percent())
    _finish(axes, study)
    _legend(axes, columns=2)


def _drawdown(figure: "Figure", study: Study) -> None:
    axes = figure.subplots()
    for part in study.parts:
        losses = drawdown(np.nan_to_num(part.held.performance.net_returns))
        colour = SEEN if part.seen else LOSS
        axes.fill_between(part.held.sessions, losses, 0, color=colour, alpha=0.35, lw=0)
        axes.plot(part.held.sessions, losses, color=colour, lw=1)
    axes.set_ylabel("below highest wealth,\n% after costs")
    axes.yaxis.set_major_formatter(_percent())
    axes.set_ylim(top=0)
    _finish(axes, study)


def _turnover(figure: "Figure", study: Study) -> None:
    axes = figure.subplots()
    for part in study.parts:
        turnover, sessions = part.held.performance.turnover, part.held.sessions
        window = rolling_window(len(sessions))
        axes.plot(sessions, turnover, ".", ms=2.5, color=_pale(part), alpha=0.6)
        axes.plot(
            sessions,
            rolling_mean(turnover, window),
            color=_colour(part),
            label=f"mean of last {window} sessions{_side(part)}",
        )
    axes.set_ylabel("weight traded a session\n(1 = capital of one side)")
    axes.set_ylim(bottom=0)
    _finish(axes, study)
    _legend(axes, columns=2)


def _calibration(figure: "Figure", study: Study) -> None:
    upper, lower = figure.subplots(2, len(study.parts), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 1))
    unit, scale = _prediction_unit(study)
    for above, below, part in zip(upper, lower, study.parts, strict=True):
        calibration, colour = part.calibration, _colour(part)
        above.set_title(_title(part))
        if not len(calibration.rows):
            _say(above, "no known outcome")
            continue
        predicted, realised = calibration.predicted * scale, calibration.realised * 1e4
        above.errorbar(
            predicted, realised, yerr=np.nan_to_num(calibration.error) * 1e4, fmt="o", ms=4, capsize=3, color=colour
        )
        if study.bundle.prediction_kind == "return":
            ends = predicted[[0, -1]]
            above.plot(ends, ends, "--", lw=1, color="#555555", label="predicted = realised")
            above.legend(loc="best", handlelength=1.4)
        above.axhline(0, color="#555555", lw=0.8)
        above.set_ylabel("mean return that\ncame, bps (±1 s.e.)")
        below.vlines(predicted, 0, calibration.rows, color=colour, lw=3)
        below.set_ylim(bottom=0)
        below.set_ylabel("rows")
        below.set_xlabel(f"mean prediction of bin{unit}")


def _importance(figure: "Figure", study: Study) -> None:
    shown = study.importance[:FEATURES_SHOWN]
    gain, splits = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(shown))[::-1]
    gain.barh(places, [100 * each.gain_share for each in shown], color=UNSEEN)
    splits.barh(places, [each.splits for each in shown], color=GROSS)
    gain.set_yticks(places, [_cut(each.name) for each in shown])
    gain.set_xlabel("share of gain, %")
    splits.set_xlabel("splits")
    for axes in (gain, splits):
        axes.grid(visible=False, axis="y")


def _beside(figure: "Figure", study: Study) -> "Iterator[tuple[Axes, Part]]":
    for axes, part in zip(
        figure.subplots(1, len(study.parts), squeeze=False, sharey=True)[0], study.parts, strict=True
    ):
        axes.set_title(_title(part))
        yield axes, part


def _finish(axes: "Axes", study: Study) -> None:
    """Shade what training has seen, and label time."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415

    _shade(axes, study, named=True)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("session on which the book was formed")


def _shade(axes: "Axes", study: Study, *, named: bool) -> None:
    for part in study.parts:
        if part.seen:
            axes.axvspan(*part.held.sessions[[0, -1]], color="#f0e6d2", alpha=0.6, lw=0, zorder=0)
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


def _prediction_unit(study: Study) -> tuple[str, float]:
    return (", bps", 1e4) if study.bundle.prediction_kind == "return" else (" (score)", 1.0)


def _colour(part: Part) -> str:
    return SEEN if part.seen else UNSEEN


def _pale(part: Part) -> str:
    return "#c4c4c4" if part.seen else GROSS


def _title(part: Part) -> str:
    return "In sample" if part.seen else "Out of sample"


def _side(part: Part) -> str:
    return ", in sample" if part.seen else ""


def _say(axes: "Axes", sentence: str) -> None:
    axes.text(0.5, 0.5, sentence, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _cut(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= NAME_CHARACTERS else f"{shown[: NAME_CHARACTERS - 1]}…"
