import re
import signal
import subprocess
import sys
import threading

import psycopg
import pytest
import typer
from structlog.testing import capture_logs
from typer.testing import CliRunner

from contracts.codec import decode
from contracts.control import ControlEvent
from contracts.streams import StreamNames
from tests.support.fleet import PATIENCE
from tests.support.registry import as_login, publishing, register, sql
from worker.cli.publish import publish_registry
from worker.embedded.processes import wait_until
from worker.registry import postgres
from worker.registry.migrations import migrate
from worker.registry.outbox import Outbox
from worker.registry.publisher import Publisher, PublisherOptions
from worker.registry.registry import Registry
from worker.settings import inherited_environment

UNPUBLISHED = "SELECT count(*) FROM registry_outbox WHERE published_at IS NULL"
LISTENER = "signal-worker publish-registry"
SESSIONS = "FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as client:
        register(client, "alpha", *(f"v{number}" for number in range(1, 6)))
        yield client


@pytest.fixture
def control(redis_client, namespace):
    """Return the control events so far, oldest first."""

    def read():
        return [decode(ControlEvent, fields.items()) for _, fields in redis_client.xrange(f"{namespace}:control")]

    return read


def numbers(events):
    return [event.activation for event in events]


def test_every_change_reaches_the_control_stream_in_order(registry, database_url, valkey_url, namespace, control):
    with publishing(database_url, valkey_url, namespace):
        registry.activate("alpha", "v1", by="ada", reason="first")
        registry.activate("alpha", "v2")
        registry.rollback("alpha")
        registry.fail("alpha", "v2", "drifted")
        registry.retry("alpha", "v2", "was the data")
        registry.deactivate("alpha")

        assert wait_until(lambda: sql(database_url, UNPUBLISHED) == [(0,)], PATIENCE)

    events = control()
    assert numbers(events) == [1, 2, 3, 4, 5, 6]
    assert [event.type.value for event in events] == [
        "model.activated",
        "model.activated",
        "model.activated",
        "model.failed",
        "reload",
        "model.deactivated",
    ]
    assert (events[0].strategy, events[0].version, events[0].by, events[0].reason) == ("alpha", "v1", "ada", "first")


def test_notification_is_not_waited_for_until_the_poll(registry, database_url, valkey_url, namespace, control):
    with publishing(database_url, valkey_url, namespace, poll_seconds=3600):
        for number in (1, 2, 3):
            registry.activate("alpha", f"v{number}")

            assert wait_until(lambda expected=number: len(control()) == expected, PATIENCE)


def test_rows_without_a_notification_are_found_by_polling(registry, database_url, valkey_url, namespace, control):
    registry.activate("alpha", "v1")
    with publishing(database_url, valkey_url, namespace):
        assert wait_until(lambda: len(control()) == 1, PATIENCE)
        sql(database_url, "INSERT INTO registry_outbox (activation, type) VALUES (1, 'reload')")

        assert wait_until(lambda: len(control()) == 2, PATIENCE)


def test_row_that_commits_after_its_successors_is_not_skipped(registry, database_url, valkey_url, namespace, control):
    registry.activate("alpha", "v1")
    with publishing(database_url, valkey_url, namespace), psycopg.connect(database_url) as late:
        late.execute("INSERT INTO registry_outbox (activation, type) VALUES (1, 'reload')")
        registry.activate("alpha", "v2")
        assert wait_until(lambda: numbers(control()) == [1, 2], PATIENCE)

        late.commit()

        assert wait_until(lambda: numbers(control()) == [1, 2, 1], PATIENCE)


def test_publisher_killed_before_the_mark_repeats_the_event(registry, database_url, valkey_url, namespace, control):
    registry.activate("alpha", "v1")
    with psycopg.connect(database_url) as holder:
        # The publisher can read and publish the row, but its mark has to wait for this lock.
        holder.execute("SELECT 1 FROM registry_outbox FOR UPDATE")
        process = start_process(database_url, valkey_url, namespace)
        try:
            assert wait_until(lambda: len(control()) == 1, PATIENCE)
        finally:
            process.kill()
            process.wait(20)
        # Else its session would still carry out the mark that it was sent.
        terminate(database_url)

    assert sql(database_url, UNPUBLISHED) == [(1,)]
    with publishing(database_url, valkey_url, namespace):
        assert wait_until(lambda: sql(database_url, UNPUBLISHED) == [(0,)], PATIENCE)
    assert numbers(control()) == [1, 1]


def test_sigterm_ends_a_waiting_publisher_with_exit_code_zero(database_url, valkey_url, namespace):
    process = start_process(database_url, valkey_url, namespace)
    try:
        assert wait_until(lambda: listeners(database_url) == 1, PATIENCE)

        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(20)


def test_of_two_publishers_one_publishes_until_it_leaves(registry, database_url, valkey_url, namespace, control):
    with publishing(database_url, valkey_url, namespace) as first:
        assert wait_until(lambda: first._role == "active", PATIENCE)
        with publishing(database_url, valkey_url, namespace) as second:
            assert wait_until(lambda: second._role == "standby", PATIENCE)
            registry.activate("alpha", "v1")
            assert wait_until(lambda: len(control()) == 1, PATIENCE)
            assert second._role == "standby"

            first.stop()
            registry.activate("alpha", "v2")

            assert wait_until(lambda: numbers(control()) == [1, 2], PATIENCE)
            assert second._role == "active"


def test_lock_of_a_cut_session_passes_on(registry, database_url, valkey_url, namespace, control):
    with (
        publishing(database_url, valkey_url, namespace) as first,
        publishing(database_url, valkey_url, namespace) as second,
    ):
        assert wait_until(lambda: {first._role, second._role} == {"active", "standby"}, PATIENCE)

        terminate(database_url)

        assert wait_until(lambda: locks(database_url) == 1, PATIENCE)
        registry.activate("alpha", "v1")
        assert wait_until(lambda: sql(database_url, UNPUBLISHED) == [(0,)], PATIENCE)
        assert numbers(control()) == [1]


def test_terminated_session_is_replaced_and_logged_once(registry, database_url, valkey_url, namespace, control):
    with capture_logs() as logs, publishing(database_url, valkey_url, namespace):
        assert wait_until(lambda: listeners(database_url) == 1, PATIENCE)

        terminate(database_url)
        registry.activate("alpha", "v1")

        assert wait_until(lambda: len(control()) == 1, PATIENCE)
    assert [line["event"] for line in logs].count("registry_away") == 1
    assert [line["event"] for line in logs].count("registry_back") == 1


def test_stream_server_killed_and_started_again_gets_what_it_missed(private_servers):
    endpoints = private_servers.endpoints
    migrate(endpoints.database_url)
    with (
        Registry(endpoints.database_url) as registry,
        capture_logs() as logs,
        publishing(endpoints.database_url, endpoints.redis_url, "signals"),
    ):
        register(registry, "alpha", "v1", "v2")
        registry.activate("alpha", "v1")
        assert wait_until(lambda: sql(endpoints.database_url, UNPUBLISHED) == [(0,)], PATIENCE)

        private_servers.kill("valkey")
        registry.activate("alpha", "v2")
        assert wait_until(lambda: any(line["event"] == "server_away" for line in logs), PATIENCE)
        assert sql(endpoints.database_url, UNPUBLISHED) == [(1,)]
        private_servers.start()

        assert wait_until(lambda: sql(endpoints.database_url, UNPUBLISHED) == [(0,)], PATIENCE)
    assert [line["event"] for line in logs if line["event"].startswith("server_")].count("server_back") == 1


def test_database_killed_and_started_again_is_waited_for(private_servers):
    endpoints = private_servers.endpoints
    migrate(endpoints.database_url)
    with (
        Registry(endpoints.database_url) as registry,
        capture_logs() as logs,
        publishing(endpoints.database_url, endpoints.redis_url, "signals"),
    ):
        register(registry, "alpha", "v1")
        # These servers commit without waiting for the disk; what a test needs after a kill is written out first.
        sql(endpoints.database_url, "CHECKPOINT")
        assert wait_until(lambda: listeners(endpoints.database_url) == 1, PATIENCE)

        private_servers.kill("postgres")
        assert wait_until(lambda: any(line["event"] == "registry_away" for line in logs), PATIENCE)
        private_servers.start()
        registry.activate("alpha", "v1")

        assert wait_until(lambda: sql(endpoints.database_url, UNPUBLISHED) == [(0,)], PATIENCE)
    assert [line["event"] for line in logs].count("registry_away") == 1


def test_frozen_database_does_not_keep_a_publisher_from_stopping(private_servers, monkeypatch):
    monkeypatch.setattr(postgres, "GRACE_SECONDS", -9.5)
    endpoints = private_servers.endpoints
    migrate(endpoints.database_url)
    with publishing(endpoints.database_url, endpoints.redis_url, "signals") as publisher:
        assert wait_until(lambda: publisher._role == "active", PATIENCE)

        private_servers.freeze("postgres")

        assert wait_until(lambda: publisher._registry_outage.lasting, PATIENCE)
        publisher.stop()
    private_servers.thaw("postgres")


def test_publisher_without_any_server_stops_at_once():
    options = PublisherOptions(backoff_max_seconds=3600)
    with Publisher("postgresql://x@127.0.0.1:1/x", "redis://127.0.0.1:1", StreamNames(), options) as publisher:
        publisher._failures = 20
        thread = threading.Thread(target=publisher.run)
        thread.start()

        assert wait_until(lambda: publisher._registry_outage.lasting, PATIENCE)
        publisher.stop()
        thread.join(10)

        assert not thread.is_alive()


def test_publisher_that_lost_the_streams_gives_up_the_lead(
    private_servers, registry, database_url, valkey_url, namespace, control
):
    lost = private_servers.endpoints.redis_url
    with publishing(database_url, lost, namespace) as first:
        assert wait_until(lambda: first._role == "active", PATIENCE)
        with publishing(database_url, valkey_url, namespace) as second:
            assert wait_until(lambda: second._role == "standby", PATIENCE)
            private_servers.kill("valkey")

            registry.activate("alpha", "v1")

            assert wait_until(lambda: numbers(control()) == [1], PATIENCE)


def test_old_published_events_are_forgotten_and_pending_ones_kept(registry, database_url):
    registry.activate("alpha", "v1")
    registry.activate("alpha", "v2")
    registry.activate("alpha", "v3")
    sql(database_url, "UPDATE registry_outbox SET published_at = now() - interval '31 days' WHERE activation = 1")
    sql(database_url, "UPDATE registry_outbox SET published_at = now() - interval '29 days' WHERE activation = 2")

    with Outbox(database_url) as outbox:
        forgotten = outbox.forget(30)

    assert forgotten == 1
    assert sql(database_url, "SELECT activation FROM registry_outbox ORDER BY 1") == [(2,), (3,)]


@pytest.fixture
def check(database_url, monkeypatch):
    """Call `publish-registry --check` as a login that may do a publisher's work alone; its exit code and words."""
    monkeypatch.setenv("DATABASE_URL", as_login(database_url, "signal_publisher"))
    cli = typer.Typer()
    cli.command()(publish_registry)

    def call(*options):
        result = CliRunner().invoke(cli, ["--check", *options])
        return result.exit_code, result.output.strip()

    return call


def test_check_reports_whether_somebody_publishes_and_what_waits(registry, database_url, valkey_url, namespace, check):
    assert check() == (1, "nobody publishes; events that wait: 0")

    with publishing(database_url, valkey_url, namespace) as publisher:
        assert wait_until(lambda: publisher._role == "active", PATIENCE)
        assert check() == (0, "a publisher publishes; events that wait: 0")

    registry.activate("alpha", "v1")
    code, words = check()
    assert code == 1
    assert re.fullmatch(r"nobody publishes; events that wait: 1, the oldest for \d+\.\d s", words)


def test_check_fails_where_an_event_is_late(registry, database_url, check):
    sql(database_url, "ALTER TABLE model_activations DISABLE TRIGGER USER")
    registry.activate("alpha", "v1")
    sql(database_url, "UPDATE model_activations SET at = at - interval '2 minutes'")
    with Outbox(database_url) as outbox:
        assert outbox.lead()

        assert check("--late-seconds", "3600")[0] == 0
        code, words = check()

    assert code == 1
    assert words.startswith("a publisher publishes; events that wait: 1, the oldest for 12")


def test_lock_of_another_database_is_no_publisher_of_this_one(check, postgres_url):
    with Outbox(postgres_url) as elsewhere:
        assert elsewhere.lead()

        assert check()[0] == 1


def listeners(database_url):
    return sql(database_url, f"SELECT count(*) {SESSIONS}", LISTENER)[0][0]


def locks(database_url):
    held = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS s USING (pid)"
    mine = " WHERE l.locktype = 'advisory' AND l.granted AND s.application_name = %s AND s.datname = current_database()"
    return sql(database_url, held + mine, LISTENER)[0][0]


def terminate(database_url):
    sql(
        database_url,
        f"SELECT pg_terminate_backend(pid) {SESSIONS}",
        LISTENER,
    )


def start_process(database_url, redis_url, namespace):
    program = "import typer; from worker.cli.publish import publish_registry; typer.run(publish_registry)"
    return subprocess.Popen(
        [sys.executable, "-c", program, "--namespace", namespace, "--poll-seconds", "0.2"],
        env=inherited_environment() | {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
        stderr=subprocess.DEVNULL,
    )
