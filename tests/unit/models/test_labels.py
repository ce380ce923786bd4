import pytest

from strategies.models.bundle import ALPHA158_LABEL
from strategies.models.labels import horizon_of, is_return, kind_of

LABEL = ALPHA158_LABEL.expression


@pytest.mark.parametrize(
    ("objective", "label", "processor", "kind"),
    [
        ("regression", LABEL, "none", "return"),
        ("quantile alpha:0.5", LABEL, "none", "return"),
        ("regression", LABEL, "cs_zscore", "score"),
        ("regression", LABEL, "cs_rank", "score"),
        ("regression", None, "none", "score"),
        ("regression", "$close/Ref($close, 1) - 1", "none", "return"),
        ("regression", "Std($close, 5)", "none", "score"),
        ("regression", "Ref($volume, -1)/$volume - 1", "none", "score"),
        ("lambdarank", LABEL, "none", "score"),
        ("binary sigmoid:1", None, "none", "probability"),
        ("cross_entropy", LABEL, "none", "probability"),
        ("custom", LABEL, "none", "score"),
        ("", LABEL, "none", "score"),
    ],
)
def test_kind_follows_from_objective_label_and_processor(objective, label, processor, kind):
    assert kind_of(objective, label=label, label_processor=processor) == kind


@pytest.mark.parametrize(
    ("expression", "horizon"),
    [
        (LABEL, ALPHA158_LABEL.horizon),
        ("Ref($open, -6)/Ref($open, -1) - 1", "open of T+1 to open of T+6"),
        ("(Ref($close, -5) - $close)/$close", "close of T to close of T+5"),
        ("Log(Ref($vwap, -2)/Ref($vwap, -1))", "vwap of T+1 to vwap of T+2"),
        ("Ref($close, -1)/Ref($close, -2) - 1", None),
        ("Ref($close, -2)/Ref($close, -1)", None),
        ("(Ref($close, -5) - $close)/$open", None),
        ("no expression at all (", None),
    ],
)
def test_horizon_of_a_return_is_read_from_its_label(expression, horizon):
    assert horizon_of(expression) == horizon
    assert is_return(expression) is (horizon is not None)
