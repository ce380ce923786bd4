import pytest

from strategies.errors import TrainingError, UnknownSymbols
from strategies.models.configuration import load_training_config
from strategies.suggestions import did_you_mean, nearest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rat", "learning_rate"),
        ("LEARNING-RATE", "learning_rate"),
        ("seed", "seed"),
        ("sed", "seed"),
        ("foo", None),
        ("form", None),
        ("", None),
    ],
)
def test_only_near_names_are_proposed(typed, meant):
    assert nearest(typed, ["learning_rate", "seed", "log_format"]) == meant


def test_known_name_gets_no_hint():
    assert did_you_mean("seed", ["seed"]) == ""
    assert did_you_mean("Seed", ["seed"]) == "; did you mean seed?"


def test_symbols_in_another_case_are_named():
    error = UnknownSymbols(("aapl", "ZZZZ", "msft"), {"AAPL": 0, "MSFT": 1})

    assert str(error).endswith("none of these; did you mean AAPL, MSFT?")
    assert "did you mean" not in str(UnknownSymbols(("APL",), {"AAPL": 0}))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("learning_rat: 0.1", "learning_rat: Extra inputs are not permitted; did you mean learning_rate?"),
        ("Seed: 1", "did you mean seed?"),
        ("shares: {trai: 0.5}", "did you mean shares.train?"),
        ("walk_forward: {folds: [{tran: 1}]}", "did you mean walk_forward.folds.train?"),
        ("top_n: 1", "did you mean construction.top_n?"),
        ("calendar: XNYS", "by SIGNALS_CALENDAR"),
        ("foo: 1", "; known are strategy, feature_set"),
    ],
)
def test_unknown_key_of_a_configuration_gets_a_near_name(tmp_path, text, hint):
    path = tmp_path / "training.yaml"
    path.write_text(text)

    with pytest.raises(TrainingError) as refused:
        load_training_config(path)

    assert hint in str(refused.value)
