"""A comparison as a picture.

Owns: which lines are on which axis.
Must not know: files, the command line; matplotlib is imported when it draws.
Invariant: what was not measured leaves a gap, never a 0.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.operations.comparison.gathering import Evidence

if TYPE_CHECKING:
    from strategies.market.bars import FloatArray

#: File endings that can be drawn.
FORMATS = ("png", "svg")


def draw(evidence: Evidence, file_format: str) -> bytes:
    """Return the picture of a comparison: similarity, turnover, realised rank IC summed up over the sessions."""
    from matplotlib import rc_context  # noqa: PLC0415 - slow, and only this draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    sessions = evidence.comparison.sessions
    similarity, distance, turnover, ic = _axes(figure := Figure(figsize=(10, 9), layout="constrained"))
    FigureCanvasAgg(figure)
    days = [one.session for one in sessions]
    _line(similarity, days, [one.similarity.rank_correlation for one in sessions], "rank correlation of predictions")
    _line(similarity, days, [one.similarity.agreement for one in sessions], "agreement of legs")
    _line(distance, days, [one.similarity.active_share for one in sessions], "active share")
    for side, name in ((0, evidence.left.version), (1, evidence.right.version)):
        worths = [(one.left, one.right)[side] for one in sessions]
        _line(turnover, days, [one.turnover for one in worths], f"turnover of {name}")
        _line(ic, days, _summed([one.rank_ic for one in worths]), f"rank IC of {name}, summed up")
    for axis in (similarity, distance, turnover, ic):
        axis.grid(visible=True, alpha=0.2)
        axis.legend(fontsize=8, loc="best")
    figure.suptitle(f"{evidence.strategy} {evidence.left.version} and {evidence.right.version}\n{evidence.basis}")
    image = io.BytesIO()
    # Neither date nor chance: the same evidence is the same file.
    with rc_context({"svg.hashsalt": "comparison"}):
        figure.savefig(image, format=file_format, dpi=110, metadata={"Date": None} if file_format == "svg" else None)
    return image.getvalue()


def _axes(figure: Any) -> Sequence[Any]:  # noqa: ANN401 - matplotlib is imported late
    axes: Sequence[Any] = figure.subplots(4, 1, sharex=True)
    return axes


def _line(axis: Any, days: Sequence[object], values: "Sequence[float] | FloatArray", name: str) -> None:  # noqa: ANN401 - as above
    axis.plot(days, values, "o-", ms=3, label=name)


def _summed(values: Sequence[float]) -> "FloatArray":
    known = np.array(values, dtype=np.float64)
    summed: FloatArray = np.where(np.isfinite(known), np.nancumsum(known), np.nan)
    return summed
