"""Fitted processors: Qlib's rules, column by column, row by row."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from strategies.errors import FeatureSetMismatch
from strategies.models.processors import Processor, apply_processors, fit_processors

KINDS = ("robust_zscore", "zscore", "minmax", "fillna")


def sample(seed=0, rows=200):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(rows, 4)) * [1, 10, 0.1, 5] + [0, 5, -1, 100]).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def test_robust_score_is_that_of_qlib():
    values = sample()
    fitted = fit_processors(["robust_zscore"], values)

    median = np.nanmedian(values.astype(float), axis=0)
    scale = (np.nanmedian(np.abs(values - median), axis=0) + 1e-12) * 1.4826
    expected = np.clip((values - median) / scale, -3, 3)

    np.testing.assert_allclose(apply_processors(fitted, values), expected, rtol=1e-6)


def test_score_has_mean_zero_and_deviation_one():
    scored = apply_processors(fit_processors(["zscore"], sample()), sample()).astype(float)

    np.testing.assert_allclose(np.nanmean(scored, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(scored, axis=0), 1, rtol=1e-6)


def test_range_is_brought_to_zero_and_one():
    scaled = apply_processors(fit_processors(["minmax"], sample()), sample())

    assert np.nanmin(scaled, axis=0).tolist() == [0, 0, 0, 0]
    assert np.nanmax(scaled, axis=0).tolist() == [1, 1, 1, 1]


def test_filling_comes_after_scoring_in_the_order_asked():
    filled = apply_processors(fit_processors(["zscore", "fillna"], sample()), sample())

    assert not np.isnan(filled).any()
    assert (filled[np.isnan(sample())] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_row_is_processed_the_same_alone_or_among_others(kind):
    fitted, values = fit_processors([kind], sample()), sample(seed=1)

    together = apply_processors(fitted, values)

    alone = np.concatenate([apply_processors(fitted, values[row : row + 1]) for row in range(len(values))])
    assert together.tobytes() == alone.tobytes()
    assert together.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_state_survives_json_bit_for_bit(kind):
    adapter = TypeAdapter(tuple[Processor, ...])
    fitted = fit_processors([kind], sample())

    read = adapter.validate_json(adapter.dump_json(fitted))

    assert apply_processors(read, sample(1)).tobytes() == apply_processors(fitted, sample(1)).tobytes()


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_constant_column_keeps_its_scale(kind):
    values = np.full((10, 1), 7, dtype=np.float32)

    assert (apply_processors(fit_processors([kind], values), values) == 0).all()


def test_column_without_values_stays_missing():
    values = sample()
    values[:, 2] = np.nan

    fitted = fit_processors(["zscore"], values)

    assert np.isnan(apply_processors(fitted, sample(1))[:, 2]).all()


def test_infinities_do_not_enter_the_fit():
    values = sample()
    with_infinity = np.vstack([values, np.full((1, 4), np.inf, dtype=np.float32)])

    assert fit_processors(["minmax"], with_infinity) == fit_processors(["minmax"], values)


def test_no_processor_returns_the_very_array():
    values = sample()

    assert apply_processors((), values) is values


def test_other_width_than_fitted_is_refused():
    with pytest.raises(FeatureSetMismatch, match="fitted on 4 columns, was 3"):
        apply_processors(fit_processors(["zscore"], sample()), sample()[:, :3])
