"""Random expression trees, as hypothesis draws them.

Owns: what a tree is made of. A tree can turn a rounding into anything (a division of two nearly equal means, a guard
at its limit), so trees are made of operators whose results are exact, or keep the relative error of their inputs;
windows that subtract large sums are at the root alone, where their scale is known.
Must not know: engines, panels, recordings.
Invariant: every tree is an expression that both the engine and Qlib accept.
"""

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

FIELDS = st.sampled_from(["$open", "$high", "$low", "$close", "$volume"])
LENGTHS = st.integers(1, 12)


def _conditions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("({} {} {})".format, inner, st.sampled_from([">", "<", ">=", "<=", "!="]), inner)


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.sampled_from(["({} + {})", "({} - {})", "({} * {})", "({} / {})", "Greater({}, {})", "Less({}, {})"])
    singles = st.sampled_from(["Abs({})", "Ref({}, 1)", "Ref({}, 4)", "Delta({}, 2)", "({} * 3)", "(0.1 - {})"])
    windows = st.sampled_from(["Max({}, {})", "Min({}, {})", "Med({}, {})", "Count({}, {})", "Quantile({}, {}, 0.25)"])
    return st.one_of(
        st.builds(lambda pattern, a, b: pattern.format(a, b), pairs, inner, inner),
        st.builds(lambda pattern, a: pattern.format(a), singles, inner),
        st.builds(lambda pattern, a, n: pattern.format(a, n), windows, inner, LENGTHS),
        st.builds("If({}, {}, {})".format, _conditions(inner), inner, inner),
    )


def _positive(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.sampled_from(["({} + {})", "({} * {})", "({} / {})", "Greater({}, {})"])
    windows = st.sampled_from(["Mean({}, {})", "Sum({}, {})", "Max({}, {})", "Med({}, {})", "WMA({}, {})"])
    return st.one_of(
        st.builds(lambda pattern, a, b: pattern.format(a, b), pairs, inner, inner),
        st.builds(lambda pattern, a, n: pattern.format(a, n), windows, inner, LENGTHS),
        st.builds("Ref({}, {})".format, inner, LENGTHS),
    )


def _over(roots: list[str], trees: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda root, tree, length: root.format(tree, length), st.sampled_from(roots), trees, LENGTHS)


#: Equal to Qlib's bit for bit.
EXACT_TREES = st.recursive(FIELDS, _deeper, max_leaves=8)
PLACES = _over(["IdxMax({}, {})", "IdxMin({}, {})", "Rank({}, {})", "Mean({} > $open, {})"], EXACT_TREES)
#: Equal within float32 rounding.
SUMS = _over(
    ["Mean({}, 7)", "Sum({}, 9)", "WMA({}, 5)", "EMA({}, 4)", "EMA({}, 0.3)", "Log({})", "{}"],
    st.recursive(st.sampled_from(["$open", "$high", "$low", "$close"]), _positive, max_leaves=6),
)


def drawn(trees: st.SearchStrategy[str], count: int) -> list[str]:
    """Return `count` different trees of at least three operators; the same ones for the same hypothesis."""
    found: dict[str, None] = {}

    @seed(0)
    @settings(
        max_examples=8 * count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(trees)
    def collect(text: str) -> None:
        if text.count("(") > 2:
            found[text] = None

    collect()
    return list(found)[:count]
