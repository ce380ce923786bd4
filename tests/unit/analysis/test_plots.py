"""Plots of a training run: what they show is what was measured."""

import numpy as np
import pytest

from strategies.analysis.plots import draw_figures, quantile_returns
from strategies.models.bundle_store import load_bundle, save_bundle
from tests.support.models import make_model

NAN = np.nan


def test_quantiles_are_counted_by_hand():
    predictions = np.array(
        [[1.0, 2.0, 3.0, 4.0, 5.0, NAN], [5.0, 4.0, 3.0, 2.0, 1.0, 6.0], [1.0, NAN, 2.0, 3.0, 4.0, NAN]]
    )
    returns = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 9.0], [0.5, 0.4, 0.3, 0.2, 0.1, 0.7], [9.0, 9.0, 9.0, 9.0, 9.0, 9.0]])

    means = quantile_returns(predictions, returns)

    # The second session's six symbols: two share the highest of five quantiles; the third has too few.
    assert means == pytest.approx([0.1, 0.2, 0.3, 0.4, (0.5 + (0.5 + 0.7) / 2) / 2])


def test_small_universe_has_as_many_quantiles_as_it_fills():
    predictions = np.array([[2.0, 1.0, NAN], [1.0, 2.0, NAN], [5.0, NAN, NAN]])
    returns = np.array([[0.2, 0.1, 9.0], [0.3, 0.4, 9.0], [9.0, 9.0, 9.0]])

    assert quantile_returns(predictions, returns) == pytest.approx([0.2, 0.3])


def test_nothing_priced_has_no_quantile():
    assert len(quantile_returns(np.full((3, 4), NAN), np.ones((3, 4)))) == 0


def test_figures_show_the_sessions_that_the_metrics_stand_on(tmp_path):
    trained = make_model()
    bundle = load_bundle(save_bundle(tmp_path, trained.content), check=False)

    figures = draw_figures(bundle, trained.judged, trained.validation_loss)

    bars = figures["ic"].axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(trained.test.signal.rank_ic, nan_ok=True)
    net = figures["cumulative_return"].axes[0].lines[1].get_ydata()
    measured = np.isfinite(trained.test.performance.net_returns)
    assert net[measured][-1] == pytest.approx(trained.test.metrics["cumulative_return"])
    assert len(figures["feature_importance"].axes[0].patches) == 20
