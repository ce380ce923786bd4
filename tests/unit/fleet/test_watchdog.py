import threading

import pytest

from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.fleet.watchdog import Departure, Orders

PATIENCE = 20.0


class Leaving:
    """A departure whose ends are written down instead of carried out."""

    def __init__(self, *, limit_seconds: float, away: bool = False) -> None:
        self.orders = Orders(stop=threading.Event(), leave_now=threading.Event())
        self.handed_back, self.codes, self._away = 0, [], away
        self.departure = Departure(
            self._hand_back, self.orders, limit_seconds=limit_seconds, end_process=self.codes.append
        )
        self.departure.start()

    def _hand_back(self) -> int:
        if self._away:
            raise StreamUnavailable("ConnectionError", "refused")
        self.handed_back += 1
        return 3


@pytest.fixture
def make_leaving():
    made = []

    def make(**options) -> Leaving:
        made.append(Leaving(**options))
        return made[-1]

    yield make
    for leaving in made:
        leaving.departure.left()
        leaving.orders.stop.set()
        leaving.departure.join(PATIENCE)


def test_worker_that_leaves_in_time_is_let_go(make_leaving):
    leaving = make_leaving(limit_seconds=60.0)

    leaving.orders.stop.set()
    leaving.departure.left()
    leaving.departure.join(PATIENCE)

    assert (leaving.codes, leaving.handed_back) == ([], 0)


def test_worker_that_ended_untold_is_let_go(make_leaving):
    leaving = make_leaving(limit_seconds=60.0)

    leaving.departure.left()
    leaving.departure.join(PATIENCE)

    assert leaving.codes == []


def test_process_that_stays_past_its_limit_is_ended(make_leaving):
    leaving = make_leaving(limit_seconds=-0.9)

    leaving.orders.stop.set()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
    assert leaving.handed_back == 1


def test_second_signal_ends_long_before_the_limit(make_leaving):
    leaving = make_leaving(limit_seconds=3600.0)

    leaving.orders.stop.set()
    leaving.orders.leave_now.set()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
    assert leaving.handed_back == 1


def test_process_is_ended_even_with_its_server_away(make_leaving):
    leaving = make_leaving(limit_seconds=-0.9, away=True)

    leaving.orders.stop.set()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
