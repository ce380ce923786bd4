import pytest

from worker.telemetry import BOUNDS, Counters, Histogram, Pulse, Timing


def test_histogram_counts_a_duration_up_to_its_bound():
    histogram = Histogram()

    for milliseconds in (0.05, 0.1, 0.11, 1_000_000.0):
        histogram.observe(milliseconds)

    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-1] == 1
    assert sum(histogram.counts) == 4
    assert histogram.seconds == pytest.approx(1000.00026)


def test_lowest_bound_is_a_tenth_of_a_millisecond():
    assert BOUNDS[0] == 0.0001
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_measured_stages_add_up_to_the_whole():
    counters = Counters()

    counters.measure(Timing(queue_ms=5.0, compute_ms=2.0, commit_ms=1.0))

    stages = {name: histogram.seconds for name, histogram in counters.stages.items()}
    assert stages == pytest.approx({"queue": 0.005, "compute": 0.002, "commit": 0.001})
    assert counters.end_to_end.seconds == pytest.approx(0.008)


def test_loop_that_has_not_begun_is_not_still():
    assert Pulse().still_seconds() == 0.0


def test_pulse_counts_from_its_last_beat(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("worker.telemetry.time.monotonic", lambda: now[0])
    pulse = Pulse()

    pulse.beat()
    now[0] = 107.0

    assert pulse.still_seconds() == 7.0
