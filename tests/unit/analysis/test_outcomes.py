"""Which sessions have returns that are evidence of a model."""

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from strategies.analysis.outcomes import LabelStatus, Outcomes
from strategies.models.manifest import Period
from tests.support.market import make_panel
from tests.support.serving import make_active

PANEL = make_panel(sessions=30)
SYMBOLS = ("MSFT", "AAPL")


def day(position):
    return PANEL.sessions[position].astype(object)


def outcomes(learnt_until=None):
    bundle = make_active().bundle
    if learnt_until is None:
        return Outcomes(PANEL, bundle)
    train, valid = Period(first=day(0), last=day(3)), Period(first=day(4), last=day(learnt_until))
    manifest = SimpleNamespace(training=SimpleNamespace(train=train, valid=valid))
    return Outcomes(PANEL, replace(bundle, manifest=manifest))


def test_return_is_the_label_in_the_requested_order():
    found = outcomes().of(day(10), SYMBOLS)

    close = PANEL.fields["close"][PANEL.rows(SYMBOLS)]
    assert found.outcome is LabelStatus.KNOWN
    np.testing.assert_allclose(found.labels, close[:, 12] / close[:, 11] - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("position", "outcome"), [(-3, LabelStatus.KNOWN), (-2, LabelStatus.NOT_KNOWN_YET), (-1, LabelStatus.NOT_KNOWN_YET)]
)
def test_last_sessions_wait_for_bars_of_the_label(position, outcome):
    found = outcomes().of(day(position), SYMBOLS)

    assert found.outcome is outcome
    assert np.isfinite(found.labels).all() == (outcome is LabelStatus.KNOWN)


def test_session_after_the_bars_is_not_known_yet():
    found = outcomes().of(date(2030, 1, 2), SYMBOLS)

    assert found.outcome is LabelStatus.NOT_KNOWN_YET
    assert np.isnan(found.labels).all()


def test_day_that_is_no_session_cannot_be_measured():
    assert outcomes().of(date(2013, 1, 5), SYMBOLS).outcome is LabelStatus.NOT_MEASURABLE
    assert outcomes().of(date(2000, 1, 3), SYMBOLS).outcome is LabelStatus.NOT_MEASURABLE


@pytest.mark.parametrize(
    ("position", "outcome"),
    [
        (2, LabelStatus.SEEN_IN_TRAINING),
        (8, LabelStatus.SEEN_IN_TRAINING),
        (9, LabelStatus.SEEN_IN_TRAINING),
        (10, LabelStatus.KNOWN),
    ],
)
def test_returns_that_training_read_are_no_evidence(position, outcome):
    found = outcomes(learnt_until=8).of(day(position), SYMBOLS)

    assert found.outcome is outcome
    assert np.isfinite(found.labels).all() == (outcome is LabelStatus.KNOWN)


def test_symbol_without_bars_has_no_return():
    found = outcomes().of(day(10), ("AAPL", "ZZZZ"))

    assert np.isfinite(found.labels).tolist() == [True, False]
