"""Plots of a training run: what they show is what was measured."""

import numpy as np
import pytest

from strategies.analysis.plots import draw_figures
from strategies.analysis.quantiles import measure_quantiles
from strategies.models.bundle_store import load_bundle, save_bundle
from tests.support.models import make_model


def test_figures_show_the_sessions_of_the_metrics(tmp_path):
    trained = make_model()
    bundle = load_bundle(save_bundle(tmp_path, trained.content), check=False)

    figures = draw_figures(bundle, trained.evaluation, trained.validation)

    bars = figures["ic"].axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(trained.test.signal.rank_ic, nan_ok=True)
    net = figures["cumulative_return"].axes[0].lines[1].get_ydata()
    measured = np.isfinite(trained.test.performance.net_returns)
    assert net[measured][-1] == pytest.approx(trained.test.metrics["cumulative_return"])
    quantiles = measure_quantiles(
        trained.test.sessions, trained.test.symbols, trained.test.predictions, trained.test.returns
    )
    shown = [bar.get_height() for bar in figures["quantile_returns"].axes[0].patches]
    assert shown == pytest.approx(1e4 * quantiles.mean)
    assert len(figures["feature_importance"].axes[0].patches) == 20
