import pytest

from worker.retry import backoff


@pytest.mark.parametrize(("tries", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (10**9, 5.0)])
def test_pause_doubles_up_to_its_cap_and_is_jittered(tries, ceiling):
    pauses = {backoff(tries, first=0.5, longest=5.0) for _ in range(200)}

    assert ceiling / 2 <= min(pauses) <= max(pauses) <= ceiling
    assert len(pauses) > 100


def test_jitter_may_leave_nothing_of_a_pause():
    pauses = [backoff(1, first=1.0, longest=1.0, least=0.0) for _ in range(200)]

    assert min(pauses) < 0.2
    assert 0.8 < max(pauses) <= 1.0
