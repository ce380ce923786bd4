import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import ExpressionError
from strategies.expressions.feature_sets import define
from strategies.expressions.parse import MAX_CHARACTERS, Call, Field, Number, Tree, parse


def shown(tree: Tree) -> str:
    if isinstance(tree, Number):
        return repr(tree.value)
    if isinstance(tree, Field):
        return f"${tree.name}"
    return f"{tree.name}({', '.join(shown(part) for part in tree.arguments)})"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("$close", "$close"),
        (" $close+1 ", "Add($close, 1)"),
        ("$a-$b-$c", "Sub(Sub($a, $b), $c)"),
        ("$a+$b*$c", "Add($a, Mul($b, $c))"),
        ("$a/$b*$c", "Mul(Div($a, $b), $c)"),
        ("$a**$b**$c", "Power($a, Power($b, $c))"),
        ("-$a**2", "Mul(Power($a, 2), -1)"),
        ("$a**-1", "Power($a, -1)"),
        ("--$a", "$a"),
        ("2*$close-$high-$low", "Sub(Sub(Mul(2, $close), $high), $low)"),
        ("$a>$b+1", "Gt($a, Add($b, 1))"),
        ("($a>$b)&($c<=1.5)|($a!=0)", "Or(And(Gt($a, $b), Le($c, 1.5)), Ne($a, 0))"),
        ("$a & $b == $c | $d", "Eq(And($a, $b), Or($c, $d))"),
        ("Ref($close, -1)", "Ref($close, -1)"),
        ("Quantile($close, 5, 1e-1)", "Quantile($close, 5, 0.1)"),
        ("(1+2)*3/4*$a", "Mul(2.25, $a)"),
        ("2**3-.5+$a", "Add(7.5, $a)"),
        ("Corr( $close , Log($volume+1) , 5 )", "Corr($close, Log(Add($volume, 1)), 5)"),
        ("F()", "F()"),
    ],
)
def test_text_becomes_the_tree_python_would_build(text, tree):
    assert shown(parse(text)) == tree


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a value was expected, the end was found, at character 1"),
        ("$", "unexpected '\\$', at character 1"),
        ("$close $open", "unexpected '\\$open', at character 8"),
        ("Mean($close, 5", "'\\)' was expected, the end was found, at character 15"),
        ("Mean($close,, 5)", "a value was expected, ',' was found, at character 13"),
        ("Mean", "'\\(' was expected"),
        ("$a < $b < $c", "comparisons do not chain"),
        ("$a > 1 & $b > 2", "comparisons do not chain"),
        ("1 > 2", "Gt of the numbers 1 and 2 has no value"),
        ("1/0*$a", "Div of the numbers 1 and 0 has no value"),
        ("9**9**9*$a", "Power of the numbers 9 and .* has no value"),
        ("1e400*$a", "a number lies beyond"),
        ("1e200*1e200*$a", "a number lies beyond"),
        ("1" * 65 + "*$a", "a number has at most 64 characters"),
        ("0x10*$a", "unexpected '0'"),
        ("$a.__class__", "unexpected '.'"),
        ("__import__('os')", 'unexpected "\'"'),
        ("$a if $b else $c", "unexpected 'if'"),
        ("[$a]", "unexpected '\\['"),
        ("$a; $b", "unexpected ';'"),
        ("$\uff41", "unexpected '\\$'"),
        ("$a\x00", "unexpected '\\\\x00'"),
        ("lambda: 1", "unexpected ':'"),
    ],
)
def test_bad_syntax_names_column_reason_and_position(text, reason):
    with pytest.raises(ExpressionError, match=f"column KMID: {reason}"):
        parse(text, "KMID")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000 + "$a" + ")" * 2000,
        "Abs(" * 900 + "$a" + ")" * 900,
        "$a" + "**$a" * 900,
        "-" * 4000 + "$a",
        "$a" + "+$a" * 3000,
        "$a" + "+$a" * 1000,
        "$a" + "+" * 2100,
        "(" * MAX_CHARACTERS,
    ],
)
def test_hostile_text_is_refused_with_a_short_error(text):
    with pytest.raises(ExpressionError) as caught:
        parse(text)

    assert len(str(caught.value)) < 400


def test_a_hundred_terms_are_no_hostile_text():
    features = define("long", [("sum", "+".join(["$close"] * 100)), ("deep", "Abs(" * 30 + "$close" + ")" * 30)])

    assert features.lookback == 1


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="$ac10.eE+-*/<>=!&|(), MeanRef\n\t_é'\"\\[", max_size=60))
def test_any_text_is_a_tree_or_an_expression_error(text):
    try:
        tree = parse(text)
    except ExpressionError:
        return
    assert isinstance(tree, Number | Field | Call)
