"""The registry of a plain owner, as on managed PostgreSQL where nobody is a superuser."""

import secrets
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from tests.support.registry import register
from tests.support.schema import SNAPSHOT, describe_schema
from tests.support.servers import PrivateServers
from worker.cli.db import app
from worker.errors import WorkerError
from worker.registry.migrations import migrate, missing_roles
from worker.registry.registry import Registry

ROLES = ("signal_reader", "signal_publisher", "signal_admin")


@contextmanager
def owned_database(server_url, attributes):
    """Give the URL of an empty database whose owner has these attributes and no others."""
    name, password = f"owner_{secrets.token_hex(4)}", secrets.token_hex(8)
    role = sql.Identifier(name)
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} " + attributes).format(role, password))
        server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        known = {key: value for key, value in conninfo_to_dict(server_url).items() if value is not None}
        try:
            yield make_conninfo(**{**known, "user": name, "password": password, "dbname": name})
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
            server.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture(params=["NOCREATEROLE NOCREATEDB", "CREATEROLE CREATEDB"])
def owner_url(request, postgres_url, database_url):  # noqa: ARG001 - with a migrated database the roles exist
    with owned_database(postgres_url, request.param) as url:
        yield url


def test_plain_owner_migrates_to_the_same_schema(owner_url):
    migrate(owner_url)

    assert describe_schema(owner_url).splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert missing_roles(owner_url) == ()


def test_plain_owner_walks_the_whole_state_machine(owner_url):
    migrate(owner_url)

    with Registry(owner_url) as registry:
        register(registry, "alpha", "v1", "v2", "v3")
        registry.activate("alpha", "v1")
        registry.activate("alpha", "v2")
        registry.rollback("alpha")
        registry.activate("alpha", "v2")
        registry.fail("alpha", "v2", "golden sample differs")
        registry.retry("alpha", "v2", "mended")
        registry.deactivate("alpha")
        found = {version.version: str(version.status) for version in registry.list("alpha")}

    assert found == {"v1": "inactive", "v2": "testing", "v3": "testing"}


def test_status_changes_by_the_functions_alone_after_one_ran(owner_url):
    migrate(owner_url)
    with Registry(owner_url) as registry:
        register(registry, "alpha", "v1")

    with psycopg.connect(owner_url) as connection:
        connection.execute("SELECT activate_model('alpha', 'v1')")
        with pytest.raises(psycopg.Error, match="changes only by activate_model") as refused:
            connection.execute("UPDATE model_registry SET status = 'failed' WHERE version = 'v1'")

    assert refused.value.sqlstate == "SW004"


def test_missing_roles_are_skipped_named_and_granted_later(empty_stack_directory, monkeypatch):
    servers = PrivateServers(empty_stack_directory)
    try:
        server_url = servers.start().database_url
        with owned_database(server_url, "NOCREATEROLE") as url:
            monkeypatch.setenv("DATABASE_URL", url)

            first = CliRunner().invoke(app, ["migrate"])

            assert first.exit_code == 0, first.output
            assert f"skipped the roles {', '.join(ROLES)}" in first.stderr
            with Registry(url) as registry:
                register(registry, "alpha", "v1")
                registry.activate("alpha", "v1")

            with psycopg.connect(server_url, autocommit=True) as server:
                for role in ROLES:
                    server.execute(f"CREATE ROLE {role} NOLOGIN".encode())
            second = CliRunner().invoke(app, ["migrate"])

            assert (second.exit_code, second.stderr) == (0, "")
            assert describe_schema(url).splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines()
            with psycopg.connect(server_url, autocommit=True) as server:
                server.execute(b"DROP OWNED BY signal_reader, signal_publisher, signal_admin")
    finally:
        servers.close()


def test_login_that_owns_nothing_is_refused_with_a_sentence(owner_url, postgres_url):
    with owned_database(postgres_url, "") as other:
        stranger = conninfo_to_dict(other)
        url = make_conninfo(owner_url, user=stranger["user"], password=stranger["password"])

        with pytest.raises(WorkerError, match="permission denied for schema public"):
            migrate(url)
