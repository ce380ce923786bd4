from datetime import UTC, datetime

import pytest

from contracts import WorkerState
from tests.support.serving import make_active
from tests.support.status import SYMBOLS, World
from worker.errors import StreamUnavailable
from worker.fleet.health import Liveness
from worker.serving.slots import Slots
from worker.telemetry import Pulse


@pytest.fixture
def world():
    return World()


def test_worker_with_model_and_fresh_bars_is_ready(world):
    assert str(world.slots.panel.sessions[-1]) == "2013-02-28"
    assert world.readiness.reasons() == ()
    assert world.readiness.state() is WorkerState.SERVING


def test_unavailable_server_is_reported_as_waiting(world):
    world.outage.away(StreamUnavailable("ConnectionError", "refused"))

    assert world.codes == ["server_away"]
    assert world.readiness.state() is WorkerState.WAITING


def test_paused_worker_is_not_ready(world):
    world.paused.set()

    assert world.codes == ["paused"]
    assert world.readiness.state() is WorkerState.PAUSED


def test_leaving_worker_drains_whatever_else_is_true(world):
    world.paused.set()
    world.draining.set()

    assert world.codes == ["draining", "paused"]
    assert world.readiness.state() is WorkerState.DRAINING


def test_registry_that_never_answered_is_distinguished_from_loading(world):
    world.started.clear()
    assert world.codes == ["starting"]

    world.registry_unavailable.set()

    assert world.codes == ["registry_never_reached"]
    assert world.readiness.state() is WorkerState.STARTING


def test_registry_that_becomes_unavailable_later_leaves_it_ready(world):
    world.registry_unavailable.set()

    assert world.codes == []


def test_worker_without_any_model_is_not_ready(world):
    world.slots.remove("alpha_baseline")

    assert world.codes == ["no_model"]


def test_each_configured_strategy_must_have_a_model(world):
    world.strategies = ("alpha_baseline", "momentum")

    (reason,) = world.readiness.reasons()

    assert reason.code == "no_model"
    assert "momentum" in reason.sentence
    assert "alpha_baseline" not in reason.sentence


def test_worker_without_bars_is_not_ready(world):
    world.slots = Slots()
    world.slots.put(make_active(SYMBOLS))

    assert world.codes == ["missing_snapshot"]


def test_snapshot_is_stale_once_another_session_is_complete(world):
    world.now = datetime(2013, 3, 1, 20, 59, tzinfo=UTC)
    assert world.codes == []

    world.now = datetime(2013, 3, 5, 12, 0, tzinfo=UTC)
    (reason,) = world.readiness.reasons()

    assert reason.code == "stale_snapshot"
    assert "ends on 2013-02-28, 2 sessions behind 2013-03-04" in reason.sentence


def test_snapshot_that_decides_the_session_is_never_stale(world):
    world.now, world.default_as_of = datetime(2013, 6, 3, tzinfo=UTC), "snapshot"

    assert world.codes == []


def test_loop_without_progress_is_hung(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("worker.telemetry.time.monotonic", lambda: now[0])
    pulse = Pulse()
    liveness = Liveness({"consumer": (pulse, 60.0)}, {})
    pulse.beat()

    now[0] = 160.0
    assert liveness.reasons() == ()
    now[0] = 160.5

    assert [reason.code for reason in liveness.reasons()] == ["hung"]
    assert "60.5 s, limit 60 s" in liveness.reasons()[0].sentence


def test_loop_that_has_not_begun_is_alive():
    assert Liveness({"consumer": (Pulse(), 0.0)}, {}).reasons() == ()


def test_thread_that_died_is_named_with_its_error():
    liveness = Liveness({}, {"heartbeat": ValueError("odd")})

    (reason,) = liveness.reasons()

    assert (reason.code, reason.sentence) == ("thread_died", "the heartbeat thread died of ValueError: odd")
