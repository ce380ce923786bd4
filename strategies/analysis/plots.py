"""Plots of a training run, for its MLflow run.

Owns: five small figures of what the bundle's metrics summarise.
Must not know: MLflow, where figures go.
Invariant: drawn from the arrays that the metrics were computed from; what could not be measured is a hole, not a 0.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strategies.analysis.evaluation import HeldOut, drawdown
from strategies.market.bars import FloatArray
from strategies.models.bundle import Bundle

#: Sessions of the running mean.
RUNNING_SESSIONS = 20
MOST_QUANTILES = 5
#: Features shown, those of most gain first.
SHOWN_FEATURES = 20


def draw_figures(bundle: Bundle, judged: HeldOut, validation_loss: tuple[float, ...]) -> dict[str, Figure]:
    """Return the figures by name.

    Args:
        bundle: Whose features are shown by gain.
        judged: The sessions that the bundle's metrics were computed from.
        validation_loss: After each boosting round, `[rounds]`.
    """
    return {
        "ic": _figure(lambda axes: _draw_ic(axes, judged)),
        "quantile_returns": _figure(lambda axes: _draw_quantiles(axes, judged)),
        "cumulative_return": _figure(lambda axes: _draw_wealth(axes, judged)),
        "feature_importance": _figure(lambda axes: _draw_importance(axes, bundle)),
        "validation_loss": _figure(lambda axes: _draw_loss(axes, validation_loss)),
    }


def quantile_returns(predictions: FloatArray, returns: FloatArray) -> FloatArray:
    """Return the mean return of each quantile of a session's predictions, `[quantiles]`, lowest predictions first.

    There are five, or as many as half of the sessions can fill; a session that cannot is left out, and each other one
    counts the same. None = `[0]`.

    Args:
        predictions: `[sessions, symbols]`; NaN = not priced.
        returns: `[sessions, symbols]`; NaN = not known.
    """
    priced = np.isfinite(predictions).sum(axis=1, keepdims=True)
    count = min(MOST_QUANTILES, int(np.median(priced[priced > 0]))) if priced.any() else 0
    ranks = pd.DataFrame(predictions).rank(axis=1, method="first").to_numpy()
    quantile = np.ceil(ranks * count / np.where(priced >= max(count, 1), priced, np.nan))
    means = [pd.DataFrame(np.where(quantile == at + 1, returns, np.nan)).mean(axis=1).mean() for at in range(count)]
    return np.array(means, dtype=np.float64)


def _figure(draw: Callable[[Axes], None]) -> Figure:
    # No pyplot: it keeps every figure and asks for a display.
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    return figure


def _draw_ic(axes: Axes, judged: HeldOut) -> None:
    rank_ic = pd.Series(judged.signal.rank_ic)
    axes.bar(judged.sessions, rank_ic, width=1.0, alpha=0.4, label="rank IC")
    axes.plot(judged.sessions, rank_ic.rolling(RUNNING_SESSIONS, min_periods=1).mean(), label="mean of 20 sessions")
    axes.set_ylabel("rank IC of a session")
    axes.legend()


def _draw_quantiles(axes: Axes, judged: HeldOut) -> None:
    means = quantile_returns(judged.predictions, judged.returns)
    axes.bar([str(at + 1) for at in range(len(means))], 1e4 * means)
    axes.set_xlabel("quantile of predictions, highest last")
    axes.set_ylabel("mean return of a session, basis points")


def _draw_wealth(axes: Axes, judged: HeldOut) -> None:
    net = np.nan_to_num(judged.performance.net_returns)
    gross = np.nan_to_num(judged.performance.gross_returns)
    axes.plot(judged.sessions, np.cumprod(1 + gross) - 1, label="before costs")
    axes.plot(judged.sessions, np.cumprod(1 + net) - 1, label="after costs")
    axes.fill_between(judged.sessions, drawdown(net), 0, alpha=0.3, label="drawdown after costs")
    axes.set_ylabel("cumulative return of the book")
    axes.legend()


def _draw_importance(axes: Axes, bundle: Bundle) -> None:
    gain = bundle.booster.feature_importance("gain")
    shown = np.argsort(gain)[::-1][:SHOWN_FEATURES][::-1]
    axes.barh([bundle.feature_set.names[index] for index in shown], gain[shown])
    axes.set_xlabel("gain, summed over splits")


def _draw_loss(axes: Axes, losses: tuple[float, ...]) -> None:
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set_xlabel("boosting round")
    axes.set_ylabel("loss on the validation period")
