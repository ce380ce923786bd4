import pytest
from qlib.contrib.data.loader import Alpha158DL, Alpha360DL

from strategies.expressions.feature_sets import feature_set


@pytest.mark.parametrize(("name", "loader"), [("alpha158", Alpha158DL), ("alpha360", Alpha360DL)])
def test_shipped_lists_are_what_qlib_generates(name, loader):
    expressions, names = loader.get_feature_config()

    shipped = feature_set(name, vwap_stand_in="none")

    assert list(zip(shipped.names, shipped.expressions, strict=True)) == list(zip(names, expressions, strict=True))
