import pytest
import structlog

from contracts import StreamNames
from worker.client import protocol
from worker.client.protocol import Execute, Pause
from worker.errors import RequestTimeout, StreamUnavailable
from worker.retry import Outage


def test_looks_for_an_outcome_grow_ever_rarer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    waiting = protocol.result(StreamNames(), "r-1", 60.0)
    pauses = []

    def wait():
        step = next(waiting)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                now[0] += step.seconds
                step = waiting.send(None)
            else:
                step = waiting.send([None, None, None])

    with pytest.raises(RequestTimeout):
        wait()

    assert pauses[:3] == [0.001, 0.001, 0.001]
    assert max(pauses) == 0.25
    assert sum(pauses) == pytest.approx(60.0)
    # 20 ms apart for a minute would be 3000 looks.
    assert len(pauses) < 320


def test_outage_is_waited_out_with_capped_pauses():
    tries = []

    def failing():
        tries.append(1)
        yield Execute(("PING",))
        return "done"

    waiting = protocol.retrying(failing, outage=Outage("test"), stopped=lambda: False, max_seconds=0.4)
    pauses, step = [], next(waiting)
    with structlog.testing.capture_logs() as logs:
        while len(tries) < 40:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = waiting.send(None)
            else:
                step = waiting.throw(StreamUnavailable("READONLY", "no"))
        with pytest.raises(StopIteration) as end:
            waiting.send(b"PONG")

    assert end.value.value == "done"
    assert max(pauses) <= 0.4
    assert len(set(pauses)) > 30
    assert [line["event"] for line in logs] == ["server_away", "server_back"]


def test_outage_is_not_waited_out_after_stopping():
    def failing():
        yield Execute(("PING",))

    waiting = protocol.retrying(failing, outage=Outage("test"), stopped=lambda: True, max_seconds=0.4)
    next(waiting)

    with pytest.raises(StreamUnavailable):
        waiting.throw(StreamUnavailable("READONLY", "no"))


def test_redriven_request_between_two_looks_has_no_outcome_yet():
    looking = protocol.outcome(StreamNames(), "r-1")
    next(looking)
    looking.send([b"rejected", b"signals:rejections", b"1-1"])
    looking.send([])

    with pytest.raises(StopIteration) as end:
        looking.send([None, None, None])

    assert end.value.value is None
