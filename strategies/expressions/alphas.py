"""Alpha158 and Alpha360: the columns of Qlib's default handlers.

Owns: both lists, in Qlib's order, generated from one template a family of columns.
Must not know: how expressions are computed.
Invariant: name for name and character for character what Qlib 0.9.7 generates
(tests/parity/test_recorded_definitions.py); identities of models depend on it, so tests/unit/expressions/shipped has
the full text.
"""

Columns = tuple[tuple[str, str], ...]

#: Sessions of each rolling family.
_WINDOWS = (5, 10, 20, 30, 60)
#: Sessions of Alpha360, and its fields in order.
_DEPTH = 60
_FIELDS = ("close", "open", "high", "low", "vwap", "volume")

_ONE_BAR: Columns = (
    ("KMID", "($close-$open)/$open"),
    ("KLEN", "($high-$low)/$open"),
    ("KMID2", "($close-$open)/($high-$low+1e-12)"),
    ("KUP", "($high-Greater($open, $close))/$open"),
    ("KUP2", "($high-Greater($open, $close))/($high-$low+1e-12)"),
    ("KLOW", "(Less($open, $close)-$low)/$open"),
    ("KLOW2", "(Less($open, $close)-$low)/($high-$low+1e-12)"),
    ("KSFT", "(2*$close-$high-$low)/$open"),
    ("KSFT2", "(2*$close-$high-$low)/($high-$low+1e-12)"),
    ("OPEN0", "$open/$close"),
    ("HIGH0", "$high/$close"),
    ("LOW0", "$low/$close"),
    ("VWAP0", "$vwap/$close"),
)

#: `D` is replaced by the window. Column = family and window.
_ROLLING: Columns = (
    ("ROC", "Ref($close, D)/$close"),
    ("MA", "Mean($close, D)/$close"),
    ("STD", "Std($close, D)/$close"),
    ("BETA", "Slope($close, D)/$close"),
    ("RSQR", "Rsquare($close, D)"),
    ("RESI", "Resi($close, D)/$close"),
    ("MAX", "Max($high, D)/$close"),
    ("MIN", "Min($low, D)/$close"),
    ("QTLU", "Quantile($close, D, 0.8)/$close"),
    ("QTLD", "Quantile($close, D, 0.2)/$close"),
    ("RANK", "Rank($close, D)"),
    ("RSV", "($close-Min($low, D))/(Max($high, D)-Min($low, D)+1e-12)"),
    ("IMAX", "IdxMax($high, D)/D"),
    ("IMIN", "IdxMin($low, D)/D"),
    ("IMXD", "(IdxMax($high, D)-IdxMin($low, D))/D"),
    ("CORR", "Corr($close, Log($volume+1), D)"),
    ("CORD", "Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), D)"),
    ("CNTP", "Mean($close>Ref($close, 1), D)"),
    ("CNTN", "Mean($close<Ref($close, 1), D)"),
    ("CNTD", "Mean($close>Ref($close, 1), D)-Mean($close<Ref($close, 1), D)"),
    ("SUMP", "Sum(Greater($close-Ref($close, 1), 0), D)/(Sum(Abs($close-Ref($close, 1)), D)+1e-12)"),
    ("SUMN", "Sum(Greater(Ref($close, 1)-$close, 0), D)/(Sum(Abs($close-Ref($close, 1)), D)+1e-12)"),
    (
        "SUMD",
        (
            "(Sum(Greater($close-Ref($close, 1), 0), D)-Sum(Greater(Ref($close, 1)-$close, 0), D))"
            "/(Sum(Abs($close-Ref($close, 1)), D)+1e-12)"
        ),
    ),
    ("VMA", "Mean($volume, D)/($volume+1e-12)"),
    ("VSTD", "Std($volume, D)/($volume+1e-12)"),
    ("WVMA", "Std(Abs($close/Ref($close, 1)-1)*$volume, D)/(Mean(Abs($close/Ref($close, 1)-1)*$volume, D)+1e-12)"),
    ("VSUMP", "Sum(Greater($volume-Ref($volume, 1), 0), D)/(Sum(Abs($volume-Ref($volume, 1)), D)+1e-12)"),
    ("VSUMN", "Sum(Greater(Ref($volume, 1)-$volume, 0), D)/(Sum(Abs($volume-Ref($volume, 1)), D)+1e-12)"),
    (
        "VSUMD",
        (
            "(Sum(Greater($volume-Ref($volume, 1), 0), D)-Sum(Greater(Ref($volume, 1)-$volume, 0), D))"
            "/(Sum(Abs($volume-Ref($volume, 1)), D)+1e-12)"
        ),
    ),
)


def _past(field: str, sessions: int) -> str:
    """Return a field some sessions ago, over its newest value: close for prices, volume for volume."""
    value = f"Ref(${field}, {sessions})" if sessions else f"${field}"
    return f"{value}/($volume+1e-12)" if field == "volume" else f"{value}/$close"


#: 13 columns of one bar, and 29 families over five windows each.
ALPHA158: Columns = _ONE_BAR + tuple(
    (f"{family}{window}", text.replace("D", str(window))) for family, text in _ROLLING for window in _WINDOWS
)
#: Prices and volume of 60 sessions, the oldest first.
ALPHA360: Columns = tuple(
    (f"{field.upper()}{age}", _past(field, age)) for field in _FIELDS for age in reversed(range(_DEPTH))
)
