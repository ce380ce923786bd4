"""Two versions beside each other: measures of books by hand, and what must hold of any two."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strategies.analysis.comparison import ModelOutput, Pair, active_share, compare, overlap
from strategies.analysis.outcomes import LabelStatus, Realised
from strategies.construction import Construction, construct

DAY = date(2013, 2, 1)
SYMBOLS = tuple("ABCDEFGH")


class Known:
    """Returns that a test has chosen."""

    def __init__(self, labels, outcome=LabelStatus.KNOWN):
        self._labels, self._outcome = labels, outcome

    def of(self, _session, symbols):
        known = self._outcome is LabelStatus.KNOWN
        labels = [self._labels.get(symbol, np.nan) if known else np.nan for symbol in symbols]
        return Realised(outcome=self._outcome, labels=np.array(labels))


def answer(predictions, *, sides=2, ms=1.0):
    """Return what a version answers that predicts this of each symbol."""
    symbols, values = tuple(predictions), np.array(list(predictions.values()), dtype=np.float64)
    weights = construct(symbols, values, Construction(top_n=sides, bottom_n=sides)).weights
    return ModelOutput(symbols=symbols, predictions=values, weights=weights, compute_ms=ms)


def ranked(order, **options):
    """Return an answer that ranks these symbols in this order, best first."""
    return answer({symbol: -float(place) for place, symbol in enumerate(order)}, **options)


def pair(left, right, *, session=DAY, question="q"):
    return Pair(question=question, session=session, left=left, right=right)


def one_session(*pairs, returns=None):
    (session,) = compare(pairs, returns, returns).sessions
    return session


predictions = st.lists(st.floats(-1, 1, allow_nan=False, width=32), min_size=len(SYMBOLS), max_size=len(SYMBOLS)).map(
    lambda values: dict(zip(SYMBOLS, values, strict=True))
)


def test_books_that_share_one_name_of_two_a_side():
    session = one_session(pair(ranked("ABCDEFGH"), ranked("ACDEFBGH")))

    assert session.similarity.long_overlap == 0.5
    assert session.similarity.short_overlap == 1.0
    assert session.similarity.agreement == 0.75
    assert session.similarity.active_share == 0.5


def test_active_share_is_half_the_weight_that_differs():
    left, right = {"A": 0.5, "B": 0.5, "C": -1.0}, {"B": 0.25, "D": 0.75, "C": -1.0}

    assert active_share(left, right) == pytest.approx((0.5 + 0.25 + 0.75) / 2)


def test_legs_of_other_sizes_overlap_by_what_both_hold():
    assert overlap({"A", "B", "C"}, {"A"}) == 0.5
    assert np.isnan(overlap(set(), set()))


def test_reversed_order_is_the_farthest_apart():
    session = one_session(pair(ranked("ABCD"), ranked("DCBA")))

    assert session.similarity.rank_correlation == pytest.approx(-1.0)
    assert (session.similarity.agreement, session.similarity.active_share) == (0.0, 2.0)


def test_correlations_equal_those_of_scipy():
    left = {"A": 0.3, "B": 0.1, "C": 0.1, "D": -0.2, "E": 0.0}
    right = {"A": 0.1, "B": 0.2, "C": -0.1, "D": -0.1, "E": 0.4}
    labels = {"A": 0.02, "B": -0.01, "C": 0.0, "D": 0.01, "E": -0.03}

    session = one_session(pair(answer(left), answer(right)), returns=Known(labels))

    names = sorted(labels)
    values = [[row[name] for name in names] for row in (left, right, labels)]
    assert session.similarity.rank_correlation == pytest.approx(stats.spearmanr(values[0], values[1])[0])
    assert session.left.rank_ic == pytest.approx(stats.spearmanr(values[0], values[2])[0])
    assert session.right.rank_ic == pytest.approx(stats.spearmanr(values[1], values[2])[0])
    assert session.right.ic == pytest.approx(stats.pearsonr(values[1], values[2])[0])
    assert (session.left.outcome, session.left.known_symbols) == (LabelStatus.KNOWN, 5)


def test_requests_of_one_session_make_one_cross_section():
    whole = one_session(pair(ranked("ABCDEF"), ranked("BACDFE")))
    first, second = answer({"A": 0.0, "B": -1.0, "C": -2.0}), answer({"D": -3.0, "E": -4.0, "F": -5.0})
    others = answer({"B": 0.0, "A": -1.0, "C": -2.0}), answer({"D": -3.0, "F": -4.0, "E": -5.0})

    parts = one_session(pair(first, others[0]), pair(second, others[1], question="r"))

    assert (parts.pairs, parts.symbols) == (2, 6)
    assert parts.similarity.rank_correlation == pytest.approx(whole.similarity.rank_correlation)


def test_turnover_compares_consecutive_sessions_of_one_question():
    days = [DAY + timedelta(days=number) for number in range(3)]
    orders = ("ABCDEFGH", "ACDEFGBH", "ACDEFGBH")
    pairs = [pair(ranked(order), ranked("ABCDEFGH"), session=day) for day, order in zip(days, orders, strict=True)]
    other = pair(ranked("HGFEDCBA"), ranked("HGFEDCBA"), session=days[1], question="other")

    found = compare([pairs[2], other, pairs[0], pairs[1]], None, None)

    # B is sold from the longs and bought as a short: half a weight each way, with C and G on the other sides.
    assert [session.left.turnover for session in found.sessions] == [
        pytest.approx(value, nan_ok=True) for value in (np.nan, 2.0, 0.0)
    ]
    assert found.left.turnover == pytest.approx(1.0)
    assert found.right.turnover == 0.0


def test_session_counts_once_however_many_pairs_it_has():
    same, turned = pair(ranked("ABCD"), ranked("ABCD")), pair(ranked("ABCD"), ranked("DCBA"))
    next_day = DAY + timedelta(days=1)

    found = compare([same, same, same, replace(turned, session=next_day)], None, None)

    assert (found.pairs, len(found.sessions)) == (4, 2)
    assert found.similarity.agreement == 0.5


def test_returns_not_known_yet_are_counted_and_never_measured():
    apart = [pair(ranked("ABCD"), ranked("ABDC"), session=DAY + timedelta(days=number)) for number in range(3)]

    found = compare(apart, Known({}, LabelStatus.NOT_KNOWN_YET), Known(dict(zip("ABCD", (4, 3, 2, 1), strict=True))))

    assert np.isnan(found.left.rank_ic)
    assert found.left.sessions[LabelStatus.NOT_KNOWN_YET] == 3
    assert found.right.sessions[LabelStatus.KNOWN] == 3
    assert found.right.rank_ic == pytest.approx(0.8)


def test_too_few_returns_are_no_measure():
    session = one_session(pair(ranked("ABCD"), ranked("ABCD")), returns=Known({"A": 0.1, "B": 0.0}))

    assert (session.left.outcome, session.left.known_symbols) == (LabelStatus.NOT_MEASURABLE, 2)
    assert np.isnan(session.left.rank_ic)


def test_symbols_missing_on_one_side_have_weight_zero():
    found = compare([pair(ranked("ABCD", sides=1), ranked("BCD", sides=1))], None, None)

    assert found.symbol_mismatches == 1
    assert found.sessions[0].symbols == 3
    assert found.similarity.rank_correlation == pytest.approx(1.0)
    assert found.similarity.active_share == 1.0


def test_latency_is_of_all_pairs():
    answers = [ranked("ABCD", ms=float(ms)) for ms in range(101)]

    found = compare([pair(one, ranked("ABCD", ms=7.0)) for one in answers], None, None)

    assert (found.left.compute_ms_p50, found.left.compute_ms_p99) == (50.0, 99.0)
    assert (found.right.compute_ms_p50, found.right.compute_ms_p99) == (7.0, 7.0)


def test_nothing_to_compare_is_no_number():
    found = compare([], None, None)

    assert (found.pairs, found.sessions) == (0, ())
    assert np.isnan([found.similarity.agreement, found.left.rank_ic, found.left.compute_ms_p99]).all()


@given(predictions)
def test_identical_versions_agree_in_everything(values):
    session = one_session(pair(answer(values), answer(values)), returns=Known(values))

    assert (session.similarity.agreement, session.similarity.active_share) == (1.0, 0.0)
    assert repr(session.left) == repr(session.right)
    if len(set(values.values())) > 1:
        assert session.similarity.rank_correlation == pytest.approx(1.0)
        assert session.left.rank_ic == pytest.approx(1.0)


@given(predictions, predictions)
def test_similarity_does_not_depend_on_which_side_is_left(first, second):
    there, back = one_session(pair(answer(first), answer(second))), one_session(pair(answer(second), answer(first)))

    assert there.similarity.agreement == back.similarity.agreement
    assert there.similarity.active_share == back.similarity.active_share
    assert 0.0 <= there.similarity.agreement <= 1.0
    assert 0.0 <= there.similarity.active_share <= 2.0
    np.testing.assert_allclose(there.similarity.rank_correlation, back.similarity.rank_correlation)


@given(predictions, predictions, st.randoms(use_true_random=False))
def test_order_of_the_pairs_does_not_matter(first, second, shuffler):
    pairs = [
        pair(answer(left), answer(right), session=DAY + timedelta(days=number))
        for number, (left, right) in enumerate([(first, second), (second, second), (second, first)])
    ]
    mixed = shuffler.sample(pairs, len(pairs))

    here, there = compare(pairs, None, None), compare(mixed, None, None)

    assert repr(here) == repr(there)
