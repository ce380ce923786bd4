import dataclasses
import math
import subprocess
import sys
import threading
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from strategies.analysis.drift import (
    FLOOR,
    DriftLevel,
    NothingToCompare,
    chance_psi,
    column_drift,
    largest_distance,
    level_of,
    measure_drift,
    stability_index,
)
from strategies.errors import BundleError
from strategies.models.bundle_store import load_bundle
from strategies.models.manifest import ChancePsiRecord
from strategies.models.reference import describe
from tests.support.models import make_bundle, make_training_panel
from tests.support.serving import make_active


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("artifacts")), check=False)


@pytest.fixture(scope="module")
def panel():
    """The bars that the bundle was trained on."""
    return make_training_panel(starts={"ORCL": 100})


def reference_of(values):
    column = np.asarray(values, dtype=np.float32)
    return describe(["F"], column[:, None], np.zeros(len(column)))[0]


def drift_of(reference, values):
    return column_drift(reference_of(reference), np.asarray(values, dtype=np.float32))


def changed(panel, **fields):
    values = {name: values.copy() for name, values in panel.fields.items()}
    for name, change in fields.items():
        values[name] = change(values[name])
    return dataclasses.replace(panel, fields=MappingProxyType(values), snapshot_id="f" * 64)


def test_index_equals_the_sum_computed_by_hand():
    expected, actual = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])

    # (0.4 - 0.5) ln(0.4 / 0.5) + (0.4 - 0.3) ln(0.4 / 0.3) = 0.0223144 + 0.0287682
    assert stability_index(expected, actual) == pytest.approx(0.0510826, abs=1e-7)


def test_empty_bin_counts_as_the_smallest_resolvable_share():
    value = stability_index(np.array([1.0, 0.0]), np.array([0.5, 0.5]))

    assert value == pytest.approx((0.5 - 1.0) * math.log(0.5) + (0.5 - FLOOR) * math.log(0.5 / FLOOR))


def test_half_the_rows_moved_to_the_highest_decile():
    reference = np.arange(10_000)
    moved = np.where((reference < 1000) & (reference % 2 == 0), 9500, reference)

    # 0.1 -> 0.05 and 0.1 -> 0.15
    by_hand = -0.05 * math.log(0.5) + 0.05 * math.log(1.5)
    drift = drift_of(reference, moved)
    assert drift.psi == pytest.approx(by_hand, abs=1e-4)
    assert drift.ks == pytest.approx(0.05, abs=2e-3)


def test_values_beyond_the_training_range_have_a_bin():
    reference = np.arange(10_000)

    drift = drift_of(reference, np.where(reference >= 9000, 20_000, reference))

    # 0.1 -> nothing and nothing -> 0.1
    assert drift.psi == pytest.approx(2 * (0.1 - FLOOR) * math.log(0.1 / FLOOR), abs=0.01)


def test_missing_values_have_a_bin_of_their_own():
    reference = np.arange(10_000.0)

    drift = drift_of(reference, np.where(reference % 2 == 0, np.nan, reference))

    # ten times 0.1 -> 0.05, and nothing -> 0.5
    assert drift.psi == pytest.approx(10 * 0.05 * math.log(2) + (0.5 - FLOOR) * math.log(0.5 / FLOOR), abs=0.01)
    assert (drift.missing, drift.reference_missing) == (0.5, 0.0)


def test_values_below_the_most_common_one_are_distinguished():
    reference = np.concatenate([np.linspace(-1, -0.1, 500), np.zeros(9000), np.linspace(0.1, 1, 500)])
    moved = np.concatenate([np.linspace(-1, -0.1, 5000), np.zeros(4500), np.linspace(0.1, 1, 500)])

    # 0.05 -> 0.5 and 0.9 -> 0.45
    by_hand = 0.45 * math.log(10) + 0.45 * math.log(2)
    assert drift_of(reference, moved).psi == pytest.approx(by_hand, abs=0.15)


def test_shifted_normal_has_the_distance_of_theory():
    rng = np.random.default_rng(0)

    drift = drift_of(rng.normal(size=50_000), rng.normal(1.0, size=50_000))

    # sup |F(x) - F(x - 1)| = 2 F(1/2) - 1 of the normal distribution
    assert drift.ks == pytest.approx(0.3829, abs=0.01)
    assert drift.level is DriftLevel.MAJOR


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(5000),
        np.repeat([0.0, 1.0], 2500),
        np.repeat(np.arange(6) / 5, 900),
        np.concatenate([np.zeros(4500), np.linspace(-1, 1, 500)]),
        np.full(5000, np.nan),
        np.concatenate([np.full(2000, np.nan), np.linspace(0, 1, 3000)]),
        np.concatenate([np.full(100, np.inf), np.linspace(-1e30, 1e30, 3000)]),
        np.linspace(0, 1, 5000) ** 20,
    ],
    ids=["constant", "two values", "six values", "mostly one value", "nothing", "gaps", "infinities", "skewed"],
)
def test_column_does_not_drift_from_itself(values):
    drift = drift_of(values, np.random.default_rng(1).permutation(values))

    assert drift.psi < 0.02
    assert drift.ks is None or drift.ks < 0.02
    assert drift.missing == drift.reference_missing


@pytest.mark.parametrize(
    ("reference", "values"),
    [
        (np.zeros(1000), np.full(1000, 1e-6)),
        (np.zeros(1000), np.full(1000, -1e-6)),
        (np.repeat([0.0, 1.0], 500), np.full(1000, 0.5)),
        (np.repeat([0.0, 1.0], 500), np.zeros(1000)),
        (np.linspace(0, 1, 1000), np.full(1000, np.nan)),
        (np.full(1000, np.nan), np.linspace(0, 1, 1000)),
        (np.linspace(0, 1, 1000), np.linspace(0, 1, 1000) * 1000),
        (np.linspace(0, 1, 1000), np.linspace(-1, 0, 1000)),
    ],
    ids=["up", "down", "between", "one of two", "lost", "found", "scaled", "below"],
)
def test_column_that_moved_is_told_by_a_finite_number(reference, values):
    drift = drift_of(reference, values)

    assert drift.level is DriftLevel.MAJOR
    assert math.isfinite(drift.psi)


ANY = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.floats(-1e6, 1e6))


@pytest.mark.filterwarnings("ignore:divide by zero")  # of its p-value
@settings(max_examples=300, deadline=None)
@given(left=st.lists(ANY, min_size=1, max_size=60), right=st.lists(ANY, min_size=1, max_size=60))
def test_distance_is_that_of_scipy(left, right):
    expected = stats.ks_2samp(left, right, method="asymp").statistic

    # Shares of rows, whose difference is rounded in another order by later versions of scipy.
    assert largest_distance(np.array(left), np.array(right)) == pytest.approx(expected, rel=0, abs=1e-15)


def test_measuring_imports_nothing_that_holds_up_requests():
    program = (
        "import sys, numpy as np; from worker.runtime import import_lightgbm; import_lightgbm();"
        "from strategies.analysis import drift; from strategies.models import reference;"
        "values = np.arange(100, dtype=np.float32);"
        "(_, known) = reference.describe(['x'], values[:, None], values);"
        "drift.column_drift(known, values);"
        "print([name for name in sys.modules if name.startswith('scipy.stats')])"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed == "[]\n"


@settings(max_examples=200, deadline=None)
@given(
    reference=st.lists(st.floats(width=32), min_size=1, max_size=60),
    values=st.lists(st.floats(width=32), min_size=1, max_size=60),
)
def test_any_columns_have_finite_distances(reference, values):
    drift = drift_of(reference, values)

    assert 0 <= drift.psi < 100
    assert drift.ks is None or 0 <= drift.ks <= 1
    assert 0 <= drift.missing <= 1


@pytest.mark.parametrize(
    ("psi", "level"),
    [
        (0.0, DriftLevel.STABLE),
        (0.0999, DriftLevel.STABLE),
        (0.1, DriftLevel.MODERATE),
        (0.25, DriftLevel.MAJOR),
        (9.0, DriftLevel.MAJOR),
    ],
)
def test_levels_begin_at_the_conventional_values(psi, level):
    assert level_of(psi) is level


def test_bars_of_training_drift_little(bundle, panel):
    report = measure_drift(bundle, panel, 180)

    assert (report.sessions, report.symbols, report.last) == (180, 8, panel.sessions[-1].astype(object))
    # ORCL is listed at session 100 and has its lookback from session 160 on.
    assert report.rows == 7 * 180 + 80
    assert report.prediction.level is DriftLevel.STABLE
    assert report.above(0.25) < 10
    assert [one.psi for one in report.features] == sorted((one.psi for one in report.features), reverse=True)
    assert {one.name for one in report.features} == set(bundle.feature_set.names)


def test_doubled_volatility_drifts_the_features_that_measure_it(bundle, panel):
    wild = changed(panel, high=lambda high: high * 1.05, low=lambda low: low * 0.95)

    report = measure_drift(bundle, wild, 180)

    worst = {one.name for one in report.features[:12]}
    assert {"KLEN", "KUP", "KLOW"} <= worst
    assert report.above(0.25) > 10


def test_rows_that_cannot_be_priced_are_left_out(bundle, panel):
    def gap(values):
        values[0, -30:] = np.nan
        return values

    with_gap = changed(panel, **dict.fromkeys(panel.fields, gap))

    assert measure_drift(bundle, with_gap, 30).rows == 7 * 30


def test_symbols_that_the_snapshot_lacks_are_left_out(bundle):
    few = make_training_panel(bundle.universe[:3])

    report = measure_drift(bundle, few, 20)

    assert (report.symbols, report.rows) == (3, 60)


def test_prediction_is_compared_as_serving_computes_it(bundle, panel):
    day = panel.sessions[-1].astype(object)
    window = panel.window(panel.symbols, day, bundle.lookback)
    served = bundle.predict(bundle.feature_set.evaluate(window))

    report = measure_drift(bundle, panel, 1)

    assert report.prediction == column_drift(bundle.reference[-1], served)


def test_measuring_stops_between_two_pieces_when_told_to(bundle, panel):
    asked = []

    def go_on():
        asked.append(threading.get_ident())
        return len(asked) < 30

    assert measure_drift(bundle, panel, 20, go_on=go_on) is None
    assert len(asked) == 30


def test_bare_model_has_nothing_to_drift_from(panel):
    with pytest.raises(BundleError, match="bare model"):
        measure_drift(make_active().bundle, panel, 20)


def test_bars_too_few_to_price_anything_are_named(bundle):
    with pytest.raises(NothingToCompare, match="none of 8 symbols"):
        measure_drift(bundle, make_training_panel(sessions=30), 20)


def moods(sessions, symbols, persistence, seed=0):
    """Predictions whose level is that of a slow mood of the market, `[sessions, symbols]`."""
    rng = np.random.default_rng(seed)
    level = np.zeros(sessions)
    for day in range(1, sessions):
        level[day] = persistence * level[day - 1] + rng.normal(0, np.sqrt(1 - persistence**2))
    return level[:, None] + rng.normal(0, 0.3, (sessions, symbols))


def chance_of(predictions):
    return {each.sessions: each.psi for each in chance_psi(reference_of(predictions.ravel()), predictions)}


def test_stretches_of_training_drift_by_chance_the_more_the_shorter():
    chance = chance_of(moods(2000, 5, 0.98))

    assert list(chance) == [1, 5, 10, 20, 60, 120, 250]
    assert sorted(chance.values(), reverse=True) == list(chance.values())
    assert chance[20] > 0.5


def test_chance_gives_little_where_rows_are_many_independent_draws():
    assert chance_of(np.random.default_rng(1).normal(size=(2000, 500)))[20] < 0.02


def test_lengths_that_training_holds_no_four_of_are_left_out():
    predictions = moods(60, 5, 0.9)
    predictions[10:20] = np.nan  # no training row on these

    assert list(chance_of(predictions)) == [1, 5, 10]
    assert chance_of(np.full((3, 5), 1.0)) == {}


def stating(bundle, *records):
    return dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"chance_psi": records}))


def test_chance_is_that_of_the_longest_stated_stretch_by_length(bundle, panel):
    stated = [ChancePsiRecord(sessions=sessions, stretches=9, psi=psi) for sessions, psi in ((5, 0.9), (20, 0.5))]

    assert measure_drift(stating(bundle, *stated), panel, 20).chance_psi == 0.5
    assert measure_drift(stating(bundle, *stated), panel, 40).chance_psi == 0.25
    assert measure_drift(stating(bundle, *stated), panel, 15).chance_psi == pytest.approx(0.3)
    assert measure_drift(stating(bundle, *stated), panel, 4).chance_psi is None
    assert measure_drift(stating(bundle), panel, 20).chance_psi is None


def test_alarm_takes_more_than_the_limit_and_more_than_chance(bundle, panel):
    report = measure_drift(stating(bundle), panel, 20)
    report = dataclasses.replace(report, prediction=dataclasses.replace(report.prediction, psi=0.49))

    assert report.alarms(0.25)
    assert not report.alarms(0.5)
    assert not dataclasses.replace(report, chance_psi=0.8).alarms(0.25)
    assert dataclasses.replace(report, chance_psi=0.3).alarms(0.25)
