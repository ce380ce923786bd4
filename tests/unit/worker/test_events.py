import fakeredis
import pytest
import structlog

from contracts import FleetEvent, FleetEventType, StreamNames
from contracts.codec import decode
from worker.events import Events
from worker.transport.client import connect

NAMES = StreamNames("t")


@pytest.fixture
def commands():
    return fakeredis.FakeRedis()


def test_event_is_one_readable_entry(commands):
    Events(commands, NAMES, "w-1").emit(
        FleetEventType.MODEL_LOADED, strategy="alpha_baseline", version="v1", activation=3, reason=None
    )

    ((_, fields),) = commands.xrange(NAMES.events)
    event = decode(FleetEvent, tuple(fields.items()))
    assert (event.type, event.worker, event.version, event.activation) == ("models.loaded", "w-1", "v1", 3)
    assert b"reason" not in fields


def test_many_events_cut_nothing(commands):
    events = Events(commands, NAMES, "w-1")

    for _ in range(400):
        events.emit(FleetEventType.PONG)

    assert commands.xlen(NAMES.events) == 400


def test_event_that_cannot_be_appended_stops_nothing():
    events = Events(connect("redis://127.0.0.1:1", "nobody"), NAMES, "w-1")

    with structlog.testing.capture_logs() as logs:
        taken = events.emit(FleetEventType.PONG)

    assert not taken
    assert [log["event"] for log in logs] == ["fleet_event", "fleet_event_lost"]
