import shutil

import psycopg
import pytest

from tests.support.fleet import PATIENCE, Fleet
from tests.support.registry import as_login, publishing, register, sql
from tests.support.world import STRATEGY, SYMBOLS
from tests.support.world import register as register_bundle
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.registry.outbox import Outbox
from worker.registry.registry import Registration, Registry

INSERT = "INSERT INTO model_registry (strategy_name, version, model_path) VALUES ('alpha', 'v9', 'models/x')"


@pytest.fixture
def three(database_url):
    with Registry(database_url) as registry:
        register(registry, "alpha", "v1", "v2")
        registry.activate("alpha", "v1")
        yield registry


def as_role(database_url, role, statement):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}")
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("signal_reader", "SELECT * FROM model_registry, model_activations, active_models, canaries"),
        ("signal_reader", "SELECT fail_model('alpha', 'v2', 'golden sample differs')"),
        ("signal_publisher", "SELECT * FROM registry_outbox JOIN model_activations USING (activation)"),
        ("signal_publisher", "UPDATE registry_outbox SET published_at = now()"),
        ("signal_publisher", "DELETE FROM registry_outbox WHERE published_at < now()"),
        ("signal_admin", INSERT),
        ("signal_admin", "SELECT activate_model('alpha', 'v2', 'better')"),
        ("signal_admin", "SELECT deactivate_model('alpha')"),
        ("signal_admin", "SELECT activate_model('alpha', 'v2'), rollback_model('alpha')"),
        ("signal_admin", "SELECT fail_model('alpha', 'v2', 'x'), retry_model('alpha', 'v2', 'y')"),
        ("signal_admin", "UPDATE model_registry SET notes = 'x'"),
        ("signal_admin", "SELECT set_canary('alpha', 'v2', 0.05, 'x'), stop_canary('alpha')"),
        ("signal_admin", "SELECT * FROM canaries"),
    ],
)
def test_role_may_do_its_work(database_url, role, statement):
    as_role(database_url, role, statement)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("signal_reader", "SELECT activate_model('alpha', 'v2')"),
        ("signal_reader", "SELECT retry_model('alpha', 'v2', 'x')"),
        ("signal_reader", INSERT),
        ("signal_reader", "UPDATE model_registry SET notes = 'x'"),
        ("signal_reader", "SELECT * FROM registry_outbox"),
        ("signal_reader", "SELECT set_canary('alpha', 'v2', 0.05, 'x')"),
        ("signal_reader", "SELECT stop_canary('alpha')"),
        ("signal_publisher", "SELECT set_canary('alpha', 'v2', 0.05, 'x')"),
        ("signal_publisher", "SELECT * FROM model_registry"),
        ("signal_publisher", "SELECT fail_model('alpha', 'v2', 'x')"),
        ("signal_publisher", "UPDATE registry_outbox SET type = 'reload'"),
        ("signal_publisher", "INSERT INTO registry_outbox (activation, type) VALUES (1, 'reload')"),
        ("signal_admin", "UPDATE model_registry SET status = 'failed'"),
        ("signal_admin", "DELETE FROM model_registry"),
        ("signal_admin", "DELETE FROM registry_outbox"),
        ("signal_admin", "SELECT switch_active('alpha', 'v2', 'activated', NULL, NULL)"),
        ("signal_admin", "INSERT INTO model_activations SELECT * FROM model_activations"),
        ("signal_admin", "SELECT record_canary(r, 'canary_set', 0.05, 'x', 'x') FROM model_registry AS r"),
        ("signal_admin", "UPDATE activation_counter SET last_activation = 7"),
    ],
)
def test_role_may_do_nothing_else(database_url, role, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(database_url, role, statement)


def test_actor_is_recorded_beside_the_login_that_acted(three, database_url):
    as_role(database_url, "signal_admin", "SELECT activate_model('alpha', 'v2', 'why', 'ada')")

    owner = sql(database_url, "SELECT session_user")[0][0]
    change = three.history("alpha")[0]
    assert (change.actor, change.session_role) == ("ada", owner)


@pytest.mark.usefixtures("three")
def test_clients_work_with_their_roles_alone(database_url):
    with Registry(as_login(database_url, "signal_admin")) as admin:
        admin.register(Registration(strategy="alpha", version="v3", model_path="models/alpha/v3"))
        admin.activate("alpha", "v3")
    with Registry(as_login(database_url, "signal_reader")) as worker:
        assert worker.active_models()["alpha"].version == "v3"
        assert [model.version for model in worker.candidates()["alpha"]] == ["v2"]
        assert not worker.withdrawn("alpha")
        worker.fail("alpha", "v3", "does not load")
    with Outbox(as_login(database_url, "signal_publisher")) as outbox:
        assert outbox.lead()
        events = outbox.pending()
        for event in events:
            outbox.mark(event)
        activated = "model.activated"
        assert [event.type for event in events] == [activated, activated, "model.failed", activated]
        assert outbox.forget(0) == 4


@pytest.fixture
def fleet(valkey_url, database_url, namespace, two_versions, tmp_path):
    """Processes whose login may do no more than a worker's."""
    folder = shutil.copytree(two_versions, tmp_path / "work")
    login = as_login(database_url, "signal_reader")
    made = Fleet(Endpoints(redis_url=valkey_url, database_url=login), folder, namespace=namespace)
    yield made
    made.end()


@pytest.mark.timeout(180)
def test_worker_serves_and_fails_a_version_by_its_role_alone(streams, fleet, database_url, valkey_url, namespace):
    model = fleet.folder / "artifacts" / "models" / STRATEGY / "v2" / "model.txt"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-200])
    publisher = publishing(as_login(database_url, "signal_publisher"), valkey_url, namespace)
    with Registry(as_login(database_url, "signal_admin")) as admin, publisher:
        register_bundle(admin, "v1")
        admin.activate(STRATEGY, "v1")
        # Registered only now: a version in testing would be proven, and failed, before it is active.
        worker = fleet.worker()
        streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)})
        assert wait_until(lambda: streams.results() or streams.rejections(), PATIENCE)
        register_bundle(admin, "v2")
        admin.activate(STRATEGY, "v2")

        refused = worker.await_event("fleet_event", kind="models.failed", version="v2")
        assert wait_until(lambda: admin.show(STRATEGY, "v2").status == "failed", PATIENCE)
        worker.await_event("fleet_event", kind="models.loaded", version="v1", activation=4)

        assert "model.txt" in refused["reason"]
        assert [vector.model_version for vector in streams.results()] == ["v1"]
        actions = [change.action for change in admin.history(STRATEGY)]
        assert actions == ["rolled_back", "failed", "activated", "activated"]
