"""Plots of a training run, for its MLflow run.

Owns: five small figures of what the bundle's metrics summarise.
Must not know: MLflow, where figures go.
Invariant: drawn from the arrays that the metrics were computed from; what could not be measured is a hole, not a 0.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strategies.analysis.evaluation import EvaluationResult, drawdown
from strategies.analysis.quantiles import measure_quantiles
from strategies.analysis.tear_sheet.measures import rolling_mean, rolling_window
from strategies.models.bundle import Bundle

#: Features shown, those of most gain first.
SHOWN_FEATURES = 20


def draw_figures(bundle: Bundle, result: EvaluationResult, validation: tuple[float, ...]) -> dict[str, Figure]:
    """Return the figures by name.

    Args:
        bundle: Whose features are shown by gain.
        result: The sessions that the bundle's metrics were computed from.
        validation: What boosting stopped by, after each round, `[rounds]`.
    """
    return {
        "ic": _figure(lambda axes: _draw_ic(axes, result)),
        "quantile_returns": _figure(lambda axes: _draw_quantiles(axes, result)),
        "cumulative_return": _figure(lambda axes: _draw_wealth(axes, result)),
        "feature_importance": _figure(lambda axes: _draw_importance(axes, bundle)),
        "validation": _figure(lambda axes: _draw_validation(axes, bundle, validation)),
    }


def _figure(draw: Callable[[Axes], None]) -> Figure:
    # No pyplot: it keeps every figure and asks for a display.
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    return figure


def _draw_ic(axes: Axes, result: EvaluationResult) -> None:
    rank_ic, window = result.signal.rank_ic, rolling_window(len(result.sessions))
    axes.bar(result.sessions, rank_ic, width=1.0, alpha=0.4, label="rank IC")
    axes.plot(result.sessions, rolling_mean(rank_ic, window), label=f"mean of {window} sessions")
    axes.set_ylabel("rank IC of a session")
    axes.legend()


def _draw_quantiles(axes: Axes, result: EvaluationResult) -> None:
    means = measure_quantiles(result.sessions, result.symbols, result.predictions, result.returns).mean
    axes.bar([str(at + 1) for at in range(len(means))], 1e4 * means)
    axes.set_xlabel("quantile of predictions, highest last")
    axes.set_ylabel("return less mean of its session, basis points")


def _draw_wealth(axes: Axes, result: EvaluationResult) -> None:
    net = np.nan_to_num(result.performance.net_returns)
    gross = np.nan_to_num(result.performance.gross_returns)
    axes.plot(result.sessions, np.cumprod(1 + gross) - 1, label="before costs")
    axes.plot(result.sessions, np.cumprod(1 + net) - 1, label="after costs")
    axes.fill_between(result.sessions, drawdown(net), 0, alpha=0.3, label="drawdown after costs")
    axes.set_ylabel("cumulative return of the book")
    axes.legend()


def _draw_importance(axes: Axes, bundle: Bundle) -> None:
    gain = bundle.booster.feature_importance("gain")
    shown = np.argsort(gain)[::-1][:SHOWN_FEATURES][::-1]
    axes.barh([bundle.feature_set.names[index] for index in shown], gain[shown])
    axes.set_xlabel("gain, summed over splits")


def _draw_validation(axes: Axes, bundle: Bundle, values: tuple[float, ...]) -> None:
    axes.plot(range(1, len(values) + 1), values)
    if bundle.manifest is not None:
        axes.axvline(bundle.manifest.training.best_iteration, linestyle="dotted", label="rounds kept")
        axes.legend()
    axes.set_xlabel("boosting round")
    axes.set_ylabel(f"{_metric(bundle)} on the validation period")


def _metric(bundle: Bundle) -> str:
    settings = bundle.manifest.settings if bundle.manifest else None
    return (settings.early_stopping_metric if settings else None) or "l2"
