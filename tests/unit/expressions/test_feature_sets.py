import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from strategies.errors import AsOfBeforeData, ExpressionError, StaleSnapshot, UnknownSymbols
from strategies.expressions.feature_sets import define, feature_set, label
from tests.support.rough_panels import plain_panel, rough_panel

#: Name and expression of every column, one a line, as recorded from Qlib 0.9.7.
SHIPPED = Path(__file__).with_name("shipped")


def test_alpha158_looks_back_sixty_one_sessions():
    features = feature_set("alpha158")

    assert features.lookback == 61
    assert len(features.names) == 158
    assert features.fields == {"open", "high", "low", "close", "volume"}


def test_alpha360_looks_back_sixty_sessions():
    assert feature_set("alpha360", vwap_stand_in="close").lookback == 60


def test_stand_in_for_vwap_is_part_of_the_identity():
    sets = [feature_set("alpha158", vwap_stand_in=name) for name in ("none", "typical_price", "close")]

    assert [features.expressions[12] for features in sets] == [
        "$vwap/$close",
        "(($high+$low+$close)/3)/$close",
        "$close/$close",
    ]
    assert len({features.sha256 for features in sets}) == 3
    assert "vwap" in sets[0].fields


def test_identity_is_the_ordered_list_and_its_meaning():
    columns = [("a", "$close/$open"), ("b", "Mean($close, 5)")]
    same = define("other name", columns)

    others = [
        define("x", columns[::-1]),
        define("x", [("A", "$close/$open"), columns[1]]),
        define("x", [("a", "$close / $open"), columns[1]]),
        define("x", columns, precision="float64"),
        define("x", columns, expanding=9),
    ]

    assert define("name", columns).sha256 == same.sha256
    assert len({features.sha256 for features in [same, *others]}) == 6


@pytest.mark.parametrize("name", ["alpha158", "alpha360"])
def test_generated_columns_are_the_recorded_ones(name):
    features = feature_set(name, vwap_stand_in="none")

    columns = zip(features.names, features.expressions, strict=True)
    text = "".join(f"{column}\t{expression}\n" for column, expression in columns)

    assert text == (SHIPPED / f"{name}.tsv").read_text(encoding="utf-8")


def test_identity_of_alpha360_is_pinned():
    assert feature_set("alpha360", vwap_stand_in="none").sha256 == (
        "079f657a7c17613037c46a1e170df94631023b33e0e675ab1ff3052c27085277"
    )


def test_identity_of_alpha158_never_changes_unnoticed():
    assert feature_set("alpha158").sha256 == "52c8175bcc923c212a221360f25e3a2c553010a2b2a2ae7691149ff8fc878385"


def test_equal_subexpressions_are_computed_once():
    one = define("one", [("a", "Std($close - Ref($close, 1), 5)")])
    two = define("two", [("a", "Std($close - Ref($close, 1), 5)"), ("b", "Std( $close-Ref($close,1), 5) / $close")])

    # One division and one store more.
    assert len(two.program.instructions) == len(one.program.instructions) + 2


def test_windows_of_one_input_share_a_pass():
    features = define("windows", [(f"m{n}", f"Mean($close, {n}) + Std($close, {n})") for n in (5, 10, 60)])

    assert (features.program.instructions[:, 0] >= 40).sum() == 1


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("Ref($close, -1)", "Ref by -1 looks ahead, features never may"),
        ("Mean($close, 3) + Delta($close, -2)", "Delta by -2 looks ahead"),
        ("MACD($close, 5)", "unknown operator MACD, at character 1"),
        ("$open + Foo($close)", "unknown operator Foo, at character 9"),
        ("Mean($close)", "Mean takes 2 arguments, 1 were given"),
        ("Log($close, 1, 2)", "Log takes 1 arguments, 3 were given"),
        ("Mean(3, 5)", "Mean needs a series here, not the number 3"),
        ("Mean($close, $open)", "Mean needs a number here"),
        ("Mean($close, 2.5)", "Mean over 2.5: a window is a whole number from 1 to 2520"),
        ("Mean($close, 0.5)", "Mean over 0.5"),
        ("Mean($close, -3)", "Mean over -3"),
        ("Mean($close, 10**9)", "Mean over 1000000000"),
        ("Skew($close, 2)", "Skew over 2: a window is a whole number from 3"),
        ("Kurt($close, 3)", "Kurt over 3: a window is a whole number from 4"),
        ("Mean($close, 0)", "Mean over 0 looks back without end: state a number of sessions"),
        ("Corr($close, $open, 0)", "Corr over 0 has no meaning in Qlib"),
        ("Ref($close, 0)", "Ref by 0: a shift is a whole number"),
        ("Ref($close, 1.0)", "Ref by 1.0: a shift is a whole number"),
        ("Quantile($close, 5, 1.5)", "Quantile 1.5: a share lies from 0 to 1"),
        ("EMA($close, 1.5)", "EMA of 1.5: a span is a whole number"),
        ("EMA($close, 0.0001)", "EMA of 0.0001 has a warm-up of"),
        ("Mean(Mean(Mean($close, 2520), 2520), 2520)", "looks back 7558 sessions, at most 5040 are allowed"),
        ("And($close, $open)", "And has no meaning for float32 and float32"),
        ("Not($close)", "Not has no meaning for float32"),
        ("($close > 1) - ($open > 1)", "Sub has no meaning for bool and bool"),
        ("1 + 2", "a column needs a field of the bars"),
        ("Power(($close > 1) + 1, -1)", "Power of whole numbers has no negative exponent"),
    ],
)
def test_a_wrong_expression_names_column_and_reason(expression, reason):
    with pytest.raises(ExpressionError) as caught:
        define("mine", [("fine", "$close/$open"), ("wrong", expression)])

    assert "column wrong" in str(caught.value)
    assert reason in str(caught.value)
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([], "has 0 columns"),
        ([("a", "$close"), ("a", "$open")], "the column name 'a' is empty or used twice"),
        ([("", "$close")], "the column name '' is empty"),
        ([(f"c{n}", "$close") for n in range(5000)], "has 5000 columns"),
    ],
)
def test_a_wrong_list_of_columns_is_refused(columns, reason):
    with pytest.raises(ExpressionError, match=reason):
        define("mine", columns)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "alpha101"}, "no feature set is called 'alpha101'; shipped are alpha158, alpha360"),
        ({"name": "alpha158", "vwap_stand_in": "open"}, "vwap_stand_in was 'open'"),
        ({"name": "alpha158", "precision": "float16"}, "precision was 'float16'"),
    ],
)
def test_an_unknown_choice_is_refused(arguments, reason):
    with pytest.raises(ExpressionError, match=reason):
        feature_set(**arguments)


def test_a_missing_field_is_named():
    panel = rough_panel(1)

    with pytest.raises(ExpressionError, match="the bars have no vwap; they have close, high, low, open, volume"):
        feature_set("alpha158", vwap_stand_in="none").evaluate(panel.window(panel.symbols, date(2024, 3, 1), 61))


def test_bars_with_vwap_feed_the_column_that_uses_it():
    panel = rough_panel(1)
    panel = replace(panel, fields={**panel.fields, "vwap": 2.0 * panel.fields["close"]})
    features = feature_set("alpha158", vwap_stand_in="none")

    vwap = features.evaluate(panel.window(panel.symbols, date(2024, 3, 1), 61))[:, features.names.index("VWAP0")]

    assert set(vwap[np.isfinite(vwap)]) == {2.0}


def test_only_research_may_define_features_that_look_ahead():
    panel = plain_panel([[1.0, 2.0, 4.0]])

    values = define("research", [("next", "Ref($close, -1)")], serving=False)

    assert values.evaluate_range(panel, date(2024, 1, 1), date(2024, 1, 3))[:, 0, 0].tolist()[:2] == [2.0, 4.0]


def test_a_label_knows_how_far_it_looks_ahead():
    panel = plain_panel([[1.0, 2.0, 4.0, 10.0], [5.0, 5.0, 10.0, 5.0]])
    target = label("Ref($close, -2)/Ref($close, -1)-1")

    values = target.evaluate_range(panel, date(2024, 1, 1), date(2024, 1, 4), ["S001", "S000"])

    assert target.lookahead == 2
    np.testing.assert_array_equal(values, np.float32([[1.0, 1.0], [-0.5, 1.5], [np.nan, np.nan], [np.nan, np.nan]]))


def test_ranges_follow_the_panel_and_the_order_of_symbols():
    panel = plain_panel([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    features = define("closes", [("close", "$close"), ("before", "Ref($close, 1)")])

    values = features.evaluate_range(panel, date(2024, 1, 2), date(2024, 1, 3), ["S001", "S000", "S001"])

    assert values[:, :, 0].tolist() == [[20.0, 2.0, 20.0], [30.0, 3.0, 30.0]]
    assert values[:, :, 1].tolist() == [[10.0, 1.0, 10.0], [20.0, 2.0, 20.0]]


@pytest.mark.parametrize(
    ("first", "last", "symbols", "error"),
    [
        (date(2023, 12, 31), date(2024, 1, 2), None, AsOfBeforeData),
        (date(2024, 1, 2), date(2024, 1, 9), None, StaleSnapshot),
        (date(2024, 1, 2), date(2024, 1, 3), ["S000", "XYZ"], UnknownSymbols),
    ],
)
def test_ranges_outside_the_panel_are_refused(first, last, symbols, error):
    with pytest.raises(error):
        define("closes", [("close", "$close")]).evaluate_range(plain_panel([[1.0, 2.0, 3.0]]), first, last, symbols)


def test_a_range_may_begin_between_sessions():
    panel = plain_panel([[1.0, 2.0, 3.0]])
    panel = replace(panel, sessions=np.array(["2024-01-01", "2024-01-05", "2024-01-08"], "datetime64[D]"))

    values = define("closes", [("close", "$close")]).evaluate_range(panel, date(2024, 1, 3), date(2024, 1, 8))

    assert values[:, 0, 0].tolist() == [2.0, 3.0]


def test_feature_sets_are_frozen_and_survive_pickling():
    features, panel = feature_set("alpha158"), rough_panel(2)
    window = panel.window(panel.symbols, date(2024, 3, 1), 61)

    copy = pickle.loads(pickle.dumps(features))  # noqa: S301 - our own bytes

    assert copy == features
    np.testing.assert_array_equal(copy.evaluate(window), features.evaluate(window))
    with pytest.raises(FrozenInstanceError):
        features.name = "other"
