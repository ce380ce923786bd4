"""Fresh random expression trees over fresh random panels against Qlib's operators, hole by hole, value by value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.expressions.feature_sets import define
from tests.parity.trees import EXACT_TREES, PLACES, SUMS
from tests.support.qlib_oracle import qlib_panel
from tests.support.rough_panels import rough_panel

pytestmark = pytest.mark.filterwarnings("ignore")
SEEDS = st.integers(0, 10**6)


def ours(expression, panel):
    days = panel.sessions.astype(object)
    return define("tree", [("column", expression)]).evaluate_range(panel, days[0], days[-1])[:, :, 0]


@settings(deadline=None, max_examples=60)
@given(tree=EXACT_TREES, seed=SEEDS, roughness=st.sampled_from([0.0, 0.1, 0.6]))
def test_random_trees_of_exact_operators_equal_qlib(tree, seed, roughness):
    panel = rough_panel(seed, sessions=40, symbols=5, roughness=roughness)

    np.testing.assert_array_equal(ours(tree, panel), qlib_panel(tree, panel), err_msg=tree)


@settings(deadline=None, max_examples=60)
@given(tree=PLACES, seed=SEEDS)
def test_places_and_shares_over_random_trees_equal_qlib(tree, seed):
    panel = rough_panel(seed, sessions=40, symbols=5, roughness=0.1)

    np.testing.assert_array_equal(ours(tree, panel), qlib_panel(tree, panel), err_msg=tree)


@settings(deadline=None, max_examples=60)
@given(tree=SUMS, seed=SEEDS)
def test_sums_over_random_positive_trees_equal_qlib(tree, seed):
    panel = rough_panel(seed, sessions=40, symbols=4, roughness=0.1)
    mine, theirs = ours(tree, panel), qlib_panel(tree, panel)

    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs), err_msg=tree)
    np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=2e-6, err_msg=tree)
