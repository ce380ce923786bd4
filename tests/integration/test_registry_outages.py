import pytest

from tests.support.registry import register, sql
from worker.errors import RegistryUnavailable
from worker.registry import postgres
from worker.registry.migrations import migrate
from worker.registry.registry import Registry


def test_server_that_is_unavailable_is_named_and_asked_again(private_servers):
    url = private_servers.endpoints.database_url
    migrate(url)
    with Registry(url) as registry:
        register(registry, "alpha", "v1")
        # These servers commit without waiting for the disk; what a test needs after a kill is written out first.
        sql(url, "CHECKPOINT")

        private_servers.kill("postgres")
        with pytest.raises(RegistryUnavailable):
            registry.active_models()
        private_servers.start()

        assert registry.strategies() == ("alpha",)


def test_frozen_server_is_waited_for_only_so_long(private_servers, monkeypatch):
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 2)
    url = private_servers.endpoints.database_url
    migrate(url)
    with Registry(url, statement_ms=500) as registry:
        register(registry, "alpha", "v1")

        private_servers.freeze("postgres")
        with pytest.raises(RegistryUnavailable):
            registry.active_models()
        private_servers.thaw("postgres")

        assert registry.activate("alpha", "v1").activation == 1
