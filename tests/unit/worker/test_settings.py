import pytest

from worker.errors import SettingsError
from worker.settings import Settings, load_settings, setting_names


def test_defaults_are_within_their_own_bounds():
    assert load_settings() == Settings()


def test_misspelt_setting_is_refused_with_the_right_one(monkeypatch):
    monkeypatch.setenv("SIGNALS_LEASE_MSS", "5")

    with pytest.raises(SettingsError, match=r"unknown setting SIGNALS_LEASE_MSS; did you mean SIGNALS_LEASE_MS\?"):
        load_settings()


def test_setting_that_resembles_nothing_is_refused_too(monkeypatch):
    monkeypatch.setenv("SIGNALS_QQQQ", "5")

    with pytest.raises(SettingsError, match=r"unknown setting SIGNALS_QQQQ$"):
        load_settings()


def test_impossible_value_is_refused_with_value_and_limit(monkeypatch):
    monkeypatch.setenv("SIGNALS_LEASE_MS", "5")

    with pytest.raises(SettingsError, match=r"lease_ms.*greater than or equal to 100.*'5'"):
        load_settings()


def test_command_line_overrides_the_environment(monkeypatch):
    monkeypatch.setenv("SIGNALS_NAMESPACE", "from-environment")

    assert load_settings(namespace="given").namespace == "given"
    assert load_settings(namespace=None).namespace == "from-environment"


def test_strategies_are_a_comma_separated_list(monkeypatch):
    monkeypatch.setenv("SIGNALS_STRATEGIES", "alpha_baseline, other")

    assert load_settings().strategies == ("alpha_baseline", "other")


def test_urls_have_the_names_that_platforms_give(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")

    assert load_settings().redis_url == "redis://elsewhere"
    assert {"REDIS_URL", "DATABASE_URL", "SIGNALS_NAMESPACE"} <= setting_names()
