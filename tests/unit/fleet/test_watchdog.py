import pytest

from worker.embedded.processes import wait_until
from worker.errors import StreamUnavailable
from worker.fleet.watchdog import ShutdownWatchdog
from worker.shutdown import Shutdown

PATIENCE = 20.0


class Leaving:
    """A worker on its way out whose ends are written down instead of carried out."""

    def __init__(self, *, limit_seconds: float, away: bool = False) -> None:
        self.shutdown = Shutdown(limit_seconds)
        self.handed_back, self.codes, self._away = 0, [], away
        self.watchdog = ShutdownWatchdog(self._nack_all, self.shutdown, end_process=self.codes.append)
        self.watchdog.start()

    def _nack_all(self) -> int:
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
        leaving.watchdog.stop()
        leaving.shutdown.request()
        leaving.watchdog.join(PATIENCE)


def test_worker_that_leaves_in_time_is_let_go(make_leaving):
    leaving = make_leaving(limit_seconds=60.0)

    leaving.shutdown.request()
    leaving.watchdog.stop()
    leaving.watchdog.join(PATIENCE)

    assert (leaving.codes, leaving.handed_back) == ([], 0)


def test_worker_that_ended_untold_is_let_go(make_leaving):
    leaving = make_leaving(limit_seconds=60.0)

    leaving.watchdog.stop()
    leaving.watchdog.join(PATIENCE)

    assert leaving.codes == []


def test_process_that_stays_past_its_limit_is_ended(make_leaving):
    leaving = make_leaving(limit_seconds=-0.9)

    leaving.shutdown.request()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
    assert leaving.handed_back == 1


def test_second_signal_ends_long_before_the_limit(make_leaving):
    leaving = make_leaving(limit_seconds=3600.0)

    leaving.shutdown.request()
    leaving.shutdown.force()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
    assert leaving.handed_back == 1


def test_process_is_ended_even_with_its_server_unavailable(make_leaving):
    leaving = make_leaving(limit_seconds=-0.9, away=True)

    leaving.shutdown.request()

    assert wait_until(lambda: leaving.codes == [1], PATIENCE)
