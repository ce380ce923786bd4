import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
from structlog.testing import capture_logs

from strategies.analysis.drift import measure_drift
from strategies.models.bundle_store import load_bundle
from tests.support.models import make_bundle, make_training_panel
from tests.support.serving import NOW, make_active
from worker.embedded.processes import wait_until
from worker.fleet.drift import DriftThread, DriftWatch
from worker.serving.slots import ActiveBundle, Slots
from worker.shutdown import Shutdown

SESSIONS = 120
STRATEGY = "alpha_baseline"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("artifacts")), check=False)


@pytest.fixture(scope="module")
def panel():
    return make_training_panel(starts={"ORCL": 100})


@pytest.fixture
def slots(bundle, panel):
    made = Slots()
    made.put(ActiveBundle(bundle=bundle, activation=1, since=NOW))
    made.put_panel(panel)
    return made


@pytest.fixture
def watch(slots):
    return DriftWatch(slots, sessions=SESSIONS, alarm_psi=0.25)


def wilder(panel, name):
    """Return the panel with days ten times as wide, so that predictions move too."""
    rng = np.random.default_rng(0)
    fields = dict(panel.fields)
    noise = np.exp(rng.normal(0, 0.2, fields["close"].shape))
    for field in ("open", "high", "low", "close"):
        fields[field] = fields[field] * noise
    return dataclasses.replace(panel, fields=MappingProxyType(fields), snapshot_id=name * 64)


def look(watch):
    with capture_logs() as lines:
        watch.look(lambda: True)
    return [line["event"] for line in lines]


def test_report_is_that_of_what_serves(watch, bundle, panel):
    look(watch)

    assert watch.reports == {STRATEGY: measure_drift(bundle, panel, SESSIONS)}


def test_drift_is_measured_once_for_each_bundle_and_snapshot(watch, slots, bundle, panel):
    assert look(watch) == ["drift_measured"]
    assert look(watch) == []

    slots.put_panel(dataclasses.replace(panel, snapshot_id="e" * 64))
    assert look(watch) == ["drift_measured"]
    slots.put(ActiveBundle(bundle=bundle, activation=2, since=NOW))
    assert look(watch) == []
    slots.put(ActiveBundle(bundle=dataclasses.replace(bundle, bundle_sha256="0" * 64), activation=3, since=NOW))
    assert look(watch) == ["drift_measured"]


def test_alarm_is_logged_once_when_it_begins_and_once_when_it_ends(watch, slots, panel):
    assert look(watch) == ["drift_measured"]

    slots.put_panel(wilder(panel, "a"))
    assert look(watch) == ["drift_measured", "drift_alarm"]
    slots.put_panel(wilder(panel, "b"))
    assert look(watch) == ["drift_measured"]
    slots.put_panel(panel)
    assert look(watch) == ["drift_measured", "drift_settled"]


def test_what_cannot_be_measured_is_logged_once_and_has_no_report(watch, slots):
    look(watch)
    slots.put(make_active())

    assert look(watch) == ["drift_not_measured"]
    assert look(watch) == []
    assert watch.reports == {}


def test_strategy_that_serves_no_more_has_no_report(watch, slots):
    look(watch)
    slots.remove(STRATEGY)

    look(watch)

    assert watch.reports == {}


def test_nothing_is_measured_before_there_are_bars(bundle):
    slots = Slots()
    slots.put(ActiveBundle(bundle=bundle, activation=1, since=NOW))
    watch = DriftWatch(slots, sessions=SESSIONS, alarm_psi=0.25)

    assert look(watch) == []


def test_look_that_was_ended_is_taken_up_again(watch):
    watch.look(lambda: False)
    assert watch.reports == {}

    look(watch)

    assert set(watch.reports) == {STRATEGY}


def test_booster_that_answers_requests_is_left_alone(watch, bundle, monkeypatch):
    used = []
    monkeypatch.setattr(bundle.booster, "predict", lambda *_, **__: used.append(1))

    look(watch)

    assert not used
    assert set(watch.reports) == {STRATEGY}


def test_thread_measures_until_stopped(watch):
    shutdown = Shutdown(0)
    thread = DriftThread(watch, shutdown)

    thread.start()
    measured = wait_until(lambda: STRATEGY in watch.reports, 60)
    shutdown.request()
    thread.join(10)

    assert measured
    assert not thread.is_alive()
    assert thread.error is None


def test_thread_ends_at_once_where_drift_is_not_wanted(slots):
    watch = DriftWatch(slots, sessions=0, alarm_psi=0.25)
    thread = DriftThread(watch, Shutdown(0))

    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    assert thread.error is None
    assert watch.reports == {}


def test_death_of_the_thread_keeps_its_error(slots):
    class Broken(DriftWatch):
        def look(self, go_on):  # noqa: ARG002 - as the one it breaks
            raise ZeroDivisionError

    thread = DriftThread(Broken(slots, sessions=1, alarm_psi=1.0), Shutdown(0))

    thread.start()
    thread.join(10)

    assert isinstance(thread.error, ZeroDivisionError)
