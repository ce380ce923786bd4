"""The shipped feature sets and the books of a model trained in Qlib, beside Qlib's own operators, live."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from strategies.expressions.feature_sets import feature_set
from tests.parity.comparing import differences
from tests.parity.expressions import tolerance
from tests.parity.measurement import compare_cells, compare_models
from tests.parity.recording import RECORDINGS, load
from tests.support.market import has_us500, us500
from tests.support.parity import demo_file, qlib_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FLOAT32_STEP = 2.0**-23
#: What Qlib's own running sums and float32 logarithms were found to be off by, with a margin.
QLIB_ERROR = 1e-3
#: The reference is float64: where it disagrees by less, it is no judge.
REFERENCE_ERROR = 1e-12


def bars_of(request, folder):
    if request.param == "demo":
        return qlib_on(demo_file(), folder / "data")
    subset = folder / "raw"
    subset.mkdir()
    for file in sorted(us500().glob("*.parquet"))[7::60]:
        (subset / file.name).symlink_to(file)
    return qlib_on(subset, folder / "data")


# The recordings cover the demo bars everywhere; the shared bars of 505 symbols are beside some clones only.
@pytest.fixture(scope="module", params=["demo", *(["us500"] if has_us500() else [])])
def panel(request, tmp_path_factory):
    return bars_of(request, tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def alpha158(panel):
    return compare_cells(panel, feature_set("alpha158"))


@pytest.fixture(scope="module")
def alpha360(panel):
    return compare_cells(panel, feature_set("alpha360"))


@pytest.fixture(scope="module")
def models(panel, alpha158):
    return compare_models(panel, alpha158)


def test_every_cell_of_every_row_is_compared(panel, alpha158):
    rows = int((panel.last - panel.first + 1).sum())

    assert len(alpha158.parity.cells) == 158
    assert {cell.cells for cell in alpha158.parity.cells} == {rows}


def test_nan_patterns_of_alpha158_equal_qlibs(alpha158):
    assert {cell.name: cell.nan_differs for cell in alpha158.parity.cells if cell.nan_differs} == {}


def test_alpha158_is_within_rounding_of_the_reference(alpha158):
    far = {cell.name: cell.ours_from_reference for cell in alpha158.parity.cells}

    assert {name: by for name, by in far.items() if by > FLOAT32_STEP} == {}


def test_ours_is_nearer_where_qlib_is_inaccurate(alpha158):
    differing = [cell for cell in alpha158.parity.cells if cell.largest > REFERENCE_ERROR]

    assert differing
    assert [cell.name for cell in differing if cell.ours_from_reference > cell.qlib_from_reference] == []
    assert max(cell.largest for cell in differing) < QLIB_ERROR


def test_alpha360_has_qlibs_bits_but_for_nothing(alpha360):
    parity = alpha360.parity

    assert len(parity.cells) == 360
    assert [cell.name for cell in parity.cells if cell.equal_to_qlib < cell.cells] == []


def test_books_of_a_model_trained_in_qlib_are_equal(models):
    model, books = models
    for period in ("test", "all"):
        assert books["qlib", period].book_share >= 0.999
    assert books["qlib", "test"].sessions > 300
    assert model.booster.num_trees() == 100


def test_default_precision_gives_the_most_equal_predictions(models):
    _, books = models

    assert books["qlib", "all"].equal_predictions >= books["float64", "all"].equal_predictions


def test_predictions_of_the_compared_model_really_vary(models):
    _, books = models

    assert books["qlib", "test"].spread > 0.01
    assert np.isfinite(books["qlib", "test"].spread)


@pytest.mark.parametrize("panel", ["demo"], indirect=True, scope="module")
def test_qlibs_data_interface_gives_what_was_recorded(panel, alpha158, alpha360):
    for compared in (alpha158, alpha360):
        recorded = load(RECORDINGS / f"demo-{compared.parity.name}.parquet")
        assert differences(recorded, compared.qlib, panel, tolerance) == {}


@pytest.mark.parametrize("panel", ["demo"], indirect=True, scope="module")
def test_qlib_trains_the_recorded_model(panel, alpha158, models):
    priced = ~np.isnan(panel.fields["close"].T)
    predictions = models[0].booster.predict(alpha158.qlib[priced], num_threads=1)

    recorded = pq.read_table(RECORDINGS / "model-predictions.parquet").column("prediction").to_numpy()
    np.testing.assert_allclose(predictions, recorded, rtol=1e-9, atol=1e-12)
