"""Random expression trees over random panels against Qlib's operators, hole by hole and value by value.

A tree can turn a rounding into anything (a division of two nearly equal means, a guard at its limit), so trees are made
of operators whose results are exact, or keep the relative error of their inputs; windows that subtract large sums stand
at the root alone, where their scale is known.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.expressions.feature_sets import define
from tests.support.qlib_oracle import qlib_panel
from tests.support.rough_panels import rough_panel

pytestmark = pytest.mark.filterwarnings("ignore")

FIELDS = st.sampled_from(["$open", "$high", "$low", "$close", "$volume"])
LENGTHS = st.integers(1, 12)


def conditions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("({} {} {})".format, inner, st.sampled_from([">", "<", ">=", "<=", "!="]), inner)


def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "({} / {})", "Greater({}, {})", "Less({}, {})"])
    singles = st.sampled_from(["Abs({})", "Ref({}, 1)", "Ref({}, 4)", "Delta({}, 2)", "({} * 3)", "(0.1 - {})"])
    windows = st.sampled_from(["Max({}, {})", "Min({}, {})", "Med({}, {})", "Count({}, {})", "Quantile({}, {}, 0.25)"])
    return st.one_of(
        st.builds(lambda pattern, a, b: pattern.format(a, b), pairs, inner, inner),
        st.builds(lambda pattern, a: pattern.format(a), singles, inner),
        st.builds(lambda pattern, a, n: pattern.format(a, n), windows, inner, LENGTHS),
        st.builds("If({}, {}, {})".format, conditions(inner), inner, inner),
    )


TREES = st.recursive(FIELDS, deeper, max_leaves=8)


@settings(deadline=None, max_examples=60)
@given(tree=TREES, seed=st.integers(0, 10**6), roughness=st.sampled_from([0.0, 0.1, 0.6]))
def test_random_trees_of_exact_operators_equal_qlib(tree, seed, roughness):
    panel = rough_panel(seed, sessions=40, symbols=5, roughness=roughness)
    days = panel.sessions.astype(object)

    mine = define("tree", [("column", tree)]).evaluate_range(panel, days[0], days[-1])[:, :, 0]

    np.testing.assert_array_equal(mine, qlib_panel(tree, panel), err_msg=tree)


@settings(deadline=None, max_examples=60)
@given(
    tree=TREES,
    window=st.sampled_from(["IdxMax({}, {})", "IdxMin({}, {})", "Rank({}, {})", "Mean({} > $open, {})"]),
    length=LENGTHS,
    seed=st.integers(0, 10**6),
)
def test_places_and_shares_over_random_trees_equal_qlib(tree, window, length, seed):
    panel, expression = rough_panel(seed, sessions=40, symbols=5, roughness=0.1), window.format(tree, length)
    days = panel.sessions.astype(object)

    mine = define("tree", [("column", expression)]).evaluate_range(panel, days[0], days[-1])[:, :, 0]

    np.testing.assert_array_equal(mine, qlib_panel(expression, panel), err_msg=expression)


def positive(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.sampled_from(["({} + {})", "({} * {})", "({} / {})", "Greater({}, {})"])
    windows = st.sampled_from(["Mean({}, {})", "Sum({}, {})", "Max({}, {})", "Med({}, {})", "WMA({}, {})"])
    return st.one_of(
        st.builds(lambda pattern, a, b: pattern.format(a, b), pairs, inner, inner),
        st.builds(lambda pattern, a, n: pattern.format(a, n), windows, inner, LENGTHS),
        st.builds("Ref({}, {})".format, inner, LENGTHS),
    )


@settings(deadline=None, max_examples=60)
@given(
    tree=st.recursive(st.sampled_from(["$open", "$high", "$low", "$close"]), positive, max_leaves=6),
    window=st.sampled_from(["Mean({}, 7)", "Sum({}, 9)", "WMA({}, 5)", "EMA({}, 4)", "EMA({}, 0.3)", "Log({})", "{}"]),
    seed=st.integers(0, 10**6),
)
def test_sums_over_random_positive_trees_equal_qlib(tree, window, seed):
    panel, expression = rough_panel(seed, sessions=40, symbols=4, roughness=0.1), window.format(tree)
    days = panel.sessions.astype(object)

    mine = define("tree", [("column", expression)]).evaluate_range(panel, days[0], days[-1])[:, :, 0]

    theirs = qlib_panel(expression, panel)
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs), err_msg=expression)
    np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=2e-6, err_msg=expression)
