"""The shipped feature sets against what Qlib made of them, and both against the reference of plain NumPy."""

import numpy as np
import pytest

from strategies.expressions.feature_sets import feature_set
from tests.parity.cells import Tally, scales_of
from tests.parity.comparing import differences, engine_values
from tests.parity.expressions import tolerance
from tests.parity.measurement import listed, reference_of
from tests.parity.panels import demo_panel, hostile_panel
from tests.parity.recording import RECORDINGS, input_digest, load

FLOAT32_STEP = 2.0**-23
#: What Qlib's own running sums and float32 logarithms were found to be off by, with a margin.
QLIB_ERROR = 1e-3
#: The reference is float64: where it disagrees by less, it is no judge.
REFERENCE_ERROR = 1e-12
REGRESSIONS = ("BETA", "RSQR", "RESI")


@pytest.fixture(scope="module", params=["demo", "hostile"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def panel(kind):
    return demo_panel() if kind == "demo" else hostile_panel()


@pytest.fixture(scope="module", params=["alpha158", "alpha360"])
def recording(request, kind):
    return load(RECORDINGS / f"{kind}-{request.param}.parquet")


@pytest.fixture(scope="module")
def ours(panel, recording):
    return engine_values(panel, recording)


def spoilt(panel):
    return np.isinf(panel.fields["close"]).any(axis=1)


def is_regression(name):
    return name.rstrip("0123456789") in REGRESSIONS


def test_recorded_features_are_the_shipped_ones(recording):
    features = feature_set("alpha158" if len(recording.expressions) == 158 else "alpha360")

    assert dict(zip(features.names, features.expressions, strict=True)) == recording.expressions


def test_recorded_bars_are_the_ones_compared(panel, recording):
    assert input_digest(panel) == recording.input_sha256


def test_features_are_those_of_qlib(panel, recording, ours):
    found = differences(recording, ours, panel, tolerance)

    if spoilt(panel).any():
        # An infinity makes Qlib's regressions NaN for ever; compare these without that symbol.
        within = differences(recording, ours, panel, tolerance, ~spoilt(panel))
        found = {name: text for name, text in found.items() if not is_regression(name)} | within
    assert found == {}


def test_an_infinity_spoils_only_windows_it_is_in():
    panel, recording = hostile_panel(), load(RECORDINGS / "hostile-alpha158.parquet")
    (symbol,) = np.flatnonzero(spoilt(panel))
    after = int(np.flatnonzero(np.isinf(panel.fields["close"][symbol]))[-1]) + 5
    values = engine_values(panel, recording)

    for place, name in enumerate(recording.expressions):
        if name in {"BETA5", "RSQR5", "RESI5"}:
            assert np.isnan(recording.values[name][after:, symbol]).all()
            assert np.isfinite(values[after:, symbol, place]).sum() > 80


def test_holes_of_the_features_are_those_of_qlib(recording, ours, panel):
    kept = ours[recording.selected]
    theirs = np.stack(list(recording.values.values()), axis=2)

    differ = np.isnan(kept) != np.isnan(theirs)

    differ[:, spoilt(panel)] = False
    assert not differ.any()


@pytest.fixture(scope="module")
def cells():
    """Alpha158 of the demo bars in the kept sessions: the engine's, Qlib's, the reference's."""
    panel, recording = demo_panel(), load(RECORDINGS / "demo-alpha158.parquet")
    mine, kept = engine_values(panel, recording), recording.selected
    tally = Tally(tuple(recording.expressions), scales_of(mine, listed(panel)))
    truth = reference_of(tuple(recording.expressions.values()), panel, slice(None))
    theirs = np.stack(list(recording.values.values()), axis=2)
    tally.add(theirs, mine[kept], truth[kept], listed(panel)[kept])
    return tally.result(), mine, truth


def test_every_cell_of_alpha158_is_within_rounding_of_the_reference(cells):
    _, mine, truth = cells
    exists = listed(demo_panel())
    tally = Tally(feature_set("alpha158").names, scales_of(mine, exists))

    tally.add(truth, mine, truth, exists)

    assert {cell.name: cell for cell in tally.result() if cell.ours_from_reference > FLOAT32_STEP} == {}
    assert {cell.cells for cell in tally.result()} == {int(exists.sum())}


def test_engine_is_nearer_to_the_reference_where_qlib_is_inaccurate(cells):
    differing = [cell for cell in cells[0] if cell.largest > REFERENCE_ERROR]

    assert differing
    assert [cell.name for cell in differing if cell.ours_from_reference > cell.qlib_from_reference] == []
    assert max(cell.largest for cell in differing) < QLIB_ERROR
