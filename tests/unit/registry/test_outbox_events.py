from datetime import UTC, datetime

import pytest

from contracts.codec import decode
from contracts.control import ControlEvent, ControlType
from worker.registry.outbox import OutboxEvent
from worker.registry.publisher import FIRST_PAUSE_SECONDS
from worker.retry import backoff


def make_event(**changes):
    values = {
        "id": 7,
        "type": "model.activated",
        "strategy": "alpha_baseline",
        "version": "v2",
        "activation": 12,
        "reason": "better IC",
        "actor": "ada",
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return OutboxEvent(**values | changes)


@pytest.mark.parametrize("kind", ["model.activated", "model.deactivated", "model.failed", "reload"])
def test_published_fields_are_a_control_event_of_the_contract(kind):
    fields = make_event(type=kind).fields()

    event = decode(ControlEvent, [(name.encode(), value.encode()) for name, value in fields.items()])

    assert event.type is ControlType(kind)
    assert (event.strategy, event.version, event.activation) == ("alpha_baseline", "v2", 12)
    assert (event.by, event.reason) == ("ada", "better IC")


def test_event_without_reason_has_no_such_field():
    fields = make_event(reason=None).fields()

    assert "reason" not in fields
    assert fields["at"] == "2026-01-02T03:04:05Z"


def test_pauses_double_up_to_their_limit():
    pauses = [backoff(tries, first=FIRST_PAUSE_SECONDS, longest=2.0) for tries in range(1, 41)]

    assert all(FIRST_PAUSE_SECONDS / 2 <= pause <= 2.0 for pause in pauses)
    assert pauses[0] <= FIRST_PAUSE_SECONDS
    assert all(pause >= 1.0 for pause in pauses[5:])
