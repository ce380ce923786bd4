import pytest

from worker.errors import SettingsError
from worker.serving.rules import session_calendar


@pytest.mark.parametrize("name", ["XNYS", "XSHG", "XBOM", "XHKG"])
def test_exchange_whose_holidays_are_known_for_a_shorter_time_can_be_served(name):
    assert session_calendar(name).name == name


def test_exchange_that_does_not_exist_is_an_impossible_setting():
    with pytest.raises(SettingsError, match="NOPE"):
        session_calendar("NOPE")
