import fakeredis
import pytest
import structlog

from contracts import FleetEvent, FleetEventType, StreamNames
from contracts.codec import decode
from worker.events import Events

NAMES = StreamNames("t")


@pytest.fixture
def server():
    return fakeredis.FakeServer()


@pytest.fixture
def commands(server):
    return fakeredis.FakeRedis(server=server)


def test_event_is_one_readable_entry(commands):
    Events(commands, NAMES, "w-1").say(
        FleetEventType.MODEL_LOADED, strategy="alpha_baseline", version="v1", activation=3, reason=None
    )

    ((_, fields),) = commands.xrange(NAMES.events)
    event = decode(FleetEvent, tuple(fields.items()))
    assert (event.type, event.worker, event.version, event.activation) == ("models.loaded", "w-1", "v1", 3)
    assert b"reason" not in fields


def test_saying_much_cuts_nothing(commands):
    events = Events(commands, NAMES, "w-1")

    for _ in range(400):
        events.say(FleetEventType.PONG)

    assert commands.xlen(NAMES.events) == 400


def test_event_that_cannot_be_said_stops_nothing(server, commands):
    events = Events(commands, NAMES, "w-1")
    server.connected = False

    with structlog.testing.capture_logs() as logs:
        events.say(FleetEventType.PONG)

    assert [log["event"] for log in logs] == ["fleet_event", "fleet_event_lost"]
