import pytest

from worker.errors import SettingsError
from worker.settings import load_settings


@pytest.mark.parametrize(
    "changes",
    [
        {"dedupe_seconds": 43_200},
        {"retention_requests_hours": 24},
        {"janitor_interval_seconds": 3600, "retention_requests_hours": 23},
    ],
)
def test_id_forgotten_before_its_request_is_refused(changes):
    with pytest.raises(SettingsError, match=r"retention_requests_hours.*remembered"):
        load_settings(**changes)


def test_id_remembered_just_long_enough_is_taken():
    settings = load_settings(retention_requests_hours=1, janitor_interval_seconds=60, dedupe_seconds=3720)

    assert settings.dedupe_seconds == 3720
