"""Damaged model files in a bundle: this process survives each, and none of them computes anything else."""

import numpy as np
import pytest

from strategies.models.bundle_store import load_bundle, load_golden
from tests.support.damage import fate, one_digit_changes, truncations
from tests.support.models import make_bundle

REFUSED = {"refused by the child", "killed the child", "hung, the child was ended", "refused by the golden sample"}
#: Of each kind; a child takes half a second.
COUNT = 12


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path)


@pytest.fixture
def good(bundle):
    return (bundle / "model.txt").read_bytes()


def test_digest_detects_damage_before_anything_is_parsed(bundle, good):
    for content in (*truncations(good, 40), *one_digit_changes(good, 40)):
        assert fate(bundle, content, forged=False) == "refused by its digest"


@pytest.mark.slow
def test_model_that_lost_a_tree_never_loads(bundle, good):
    trees = good[: good.index(b"end of trees")]

    fates = [fate(bundle, content, forged=True) for content in truncations(trees, COUNT)]

    assert set(fates) <= REFUSED


@pytest.mark.slow
def test_changed_digit_is_refused_or_changes_no_golden_prediction(bundle, good):
    sound = load_bundle(bundle, check=False)
    golden = load_golden(bundle, sound)

    fates = []
    for content in one_digit_changes(good, COUNT, seed=1):
        fates.append(fate(bundle, content, forged=True))
        if fates[-1] == "loads":
            again = load_bundle(bundle, check=False, prove=False).predict(golden.features)
            np.testing.assert_array_equal(again, golden.predictions)

    assert set(fates) <= REFUSED | {"loads"}
    assert "refused by the golden sample" in fates
