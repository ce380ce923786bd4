"""Models that must not serve, and words about them that go astray: the right version serves, each vector is its own."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strategies.errors import BundleError
from strategies.models.bundle_files import SIZE_LIMITS
from strategies.models.bundle_store import load_bundle
from strategies.models.tables import encode_golden
from tests.support.attribution import judge
from tests.support.campaign import SYMBOLS, build_campaign
from tests.support.fleet import PATIENCE, Fleet, Process
from tests.support.models import change_file, forge_file, make_bare_model, make_booster, make_bundle, make_content
from tests.support.registry import sql
from tests.support.serving import Streams
from tests.support.world import STRATEGY
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.errors import IllegalTransition, UnknownVersion
from worker.registry.migrations import migrate
from worker.registry.registry import Registration, Registry

pytestmark = pytest.mark.timeout(300)

REQUEST = {"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)}
REFUSED = "models.failed"
WITHOUT_SECOND_ACTIVATION = """
DO $$ BEGIN
    SET LOCAL session_replication_role = replica;
    DELETE FROM registry_outbox WHERE activation = 2;
    DELETE FROM model_activations WHERE activation = 2;
    UPDATE activation_counter SET last_activation = 1;
    UPDATE model_registry SET status = 'testing', activated_at = NULL WHERE version = 'v2';
    UPDATE model_registry SET status = 'active', deactivated_at = NULL WHERE version = 'v1';
END $$
"""


@pytest.fixture
def folder(tmp_path):
    return build_campaign(tmp_path, 3)


def register(registry: Registry, version: str, path: str | None = None, **config: object) -> None:
    stated = Registration(
        strategy=STRATEGY, version=version, model_path=path or f"models/{STRATEGY}/{version}", config=config
    )
    registry.register(stated)


def truncate(bundle: Path) -> None:
    change_file(bundle, "model.txt", (bundle / "model.txt").read_bytes()[:-200])


def change_one_digit(bundle: Path) -> None:
    content = bytearray((bundle / "model.txt").read_bytes())
    at = content.index(b"leaf_value=") + len("leaf_value=0.")
    content[at] = ord("7") if content[at] != ord("7") else ord("3")
    change_file(bundle, "model.txt", bytes(content))


def forge_one_digit(bundle: Path) -> None:
    change_one_digit(bundle)
    forge_file(bundle, "model.txt", (bundle / "model.txt").read_bytes())


def swap_golden_sample(bundle: Path) -> None:
    other = make_content(seed=3)
    forge_file(bundle, "golden.parquet", encode_golden(other.golden, other.lineage.feature_set.names))


def predict_nan(bundle: Path) -> None:
    lines = (bundle / "model.txt").read_text("ascii").splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("leaf_value="))
    first = lines[at].removeprefix("leaf_value=").split()[0]
    lines[at] = lines[at].replace(first, "nan".ljust(len(first)), 1)  # no shorter: LightGBM jumps by sizes
    forge_file(bundle, "model.txt", "".join(lines).encode())


def grow_beyond_the_limit(bundle: Path) -> None:
    (bundle / "model.txt").chmod(0o644)
    with (bundle / "model.txt").open("r+b") as file:
        file.truncate(SIZE_LIMITS["model.txt"] + 1)  # a hole: it takes no room on the disk


#: How a bundle is spoilt, and words of the reason for which it is refused.
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "model.txt has SHA-256"),
    "wrong-digest": (change_one_digit, "model.txt has SHA-256"),
    "forged-digest": (forge_one_digit, "prediction of"),
    "swapped-golden": (swap_golden_sample, "prediction of"),
    "157-features": (
        lambda bundle: forge_file(bundle, "model.txt", make_booster(features=157).model_to_string().encode()),
        "157 features, the feature set 158",
    ),
    "nan": (predict_nan, "leaf value nan"),
    "too-large": (grow_beyond_the_limit, "at most 536870912 are read"),
}
#: The same of model files without a bundle.
BARE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bare-truncated": (lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), "model"),
    "bare-157-features": (lambda file: make_bare_model(file, features=157), "157 features"),
    "bare-nothing": (lambda file: file.write_bytes(b""), "LightGBM cannot read the model"),
}
#: What is not here, or is wrong here alone, which fails the version for nobody.
ABSENT = {
    "missing-file": (None, "golden.parquet"),
    "link-inside": (None, "model.txt cannot be opened"),
    "missing-folder": (f"models/{STRATEGY}/nowhere", "there is nothing at"),
    "mlflow-not-fetched": ("models:/alpha/7", "was not brought below"),
    "outside": ("/etc", "outside the artifact root"),
}


def spoil(folder: Path, registry: Registry) -> dict[str, str]:
    """Register every version that must not serve, and return it with words of the reason."""
    models = folder / "artifacts" / "models" / STRATEGY
    for name, (change, _) in SPOILT.items():
        change(make_bundle(folder / "artifacts", version=name, seed=2))
        register(registry, name)
    for name, (change, _) in BARE.items():
        change(make_bare_model(models / f"{name}.txt"))
        register(registry, name, f"models/{STRATEGY}/{name}.txt")
    (make_bundle(folder / "artifacts", version="missing-file", seed=2) / "golden.parquet").unlink()
    linked = make_bundle(folder / "artifacts", version="link-inside", seed=2) / "model.txt"
    linked.unlink()
    linked.symlink_to("../v2/model.txt")
    for name, (path, _) in ABSENT.items():
        register(registry, name, path, **({"bundle_sha256": "0" * 64} if path and "models:" in path else {}))
    register(registry, "pinned", f"models/{STRATEGY}/v2", bundle_sha256="0" * 64)
    found = SPOILT | BARE | ABSENT | {"pinned": (None, "bundle.json")}
    return {name: words for name, (_, words) in found.items()}


@pytest.fixture
def registry(database_url):
    with Registry(database_url) as made:
        register(made, "v1")
        register(made, "v2")
        made.activate(STRATEGY, "v1")
        yield made


@pytest.fixture
def workers(valkey_url, database_url, namespace, folder, registry):
    """Two workers that hear of nothing and look at the registry often."""
    assert registry.active(STRATEGY) is not None
    endpoints = Endpoints(redis_url=valkey_url, database_url=database_url)
    fleet = Fleet(endpoints, folder, namespace=namespace, reconcile_seconds=0.2, allow_unproven="true", shadow_share=0)
    try:
        yield [fleet.worker(worker_name=f"w{place}") for place in range(2)]
    finally:
        fleet.end()


def refusals(workers: list[Process], activation: int) -> list[str]:
    """Return why workers refused it, in their own words."""
    events = [event for worker in workers for event in worker.events("fleet_event")]
    return [event["reason"] for event in events if (event["kind"], event.get("activation")) == (REFUSED, activation)]


def await_refusal(streams: Streams, registry: Registry, workers: list[Process], version: str, reason: str) -> None:
    """Activate a version that must not serve, and see it refused for this reason, and failed unless it is absent."""
    activation = registry.activate(STRATEGY, version).activation

    assert wait_until(lambda: refusals(workers, activation) != [], PATIENCE), version
    assert all(reason in refusal for refusal in refusals(workers, activation)), refusals(workers, activation)
    if version in ABSENT:
        # Of no worker that has it, and so no word against the version itself, also at the next look.
        streams.client.xadd(streams.names.control, {"type": "reload"})
        assert wait_until(lambda: len(refusals(workers, activation)) > len(workers), PATIENCE)
        assert registry.show(STRATEGY, version).status == "active"
        return
    assert wait_until(lambda: registry.show(STRATEGY, version).status == "failed", PATIENCE), version
    with pytest.raises(IllegalTransition):
        registry.activate(STRATEGY, version)


def test_no_model_that_must_not_serve_ever_answers_on_any_worker(streams, database_url, folder, registry, workers):
    asked = []
    for version, reason in spoil(folder, registry).items():
        asked += streams.add(REQUEST, times=4)
        await_refusal(streams, registry, workers, version, reason)
        asked += streams.add(REQUEST, times=4)
        with pytest.raises(UnknownVersion):
            registry.activate(STRATEGY, "unknown")
        last = registry.activate(STRATEGY, "v1").activation
    assert registry.activate(STRATEGY, "v1").activation == last
    for worker in workers:
        worker.await_event("fleet_event", kind="models.loaded", activation=last)
    assert wait_until(lambda: len(streams.results()) == len(asked) and streams.pending() == 0, PATIENCE)
    for worker in workers:
        worker.end()

    verdict = judge(streams, database_url, folder, asked)
    assert {vector.model_version for vector in streams.results()} == {"v1"}
    assert not verdict.faults.keys() - {"failed", "untold", "unpublished"}, str(verdict)


def test_file_of_exactly_the_size_limit_serves_and_one_byte_more_does_not(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path)
    size = (bundle / "model.txt").stat().st_size

    monkeypatch.setitem(SIZE_LIMITS, "model.txt", size)
    assert load_bundle(bundle).proven
    monkeypatch.setitem(SIZE_LIMITS, "model.txt", size - 1)
    with pytest.raises(BundleError, match=f"has {size} bytes, at most {size - 1} are read"):
        load_bundle(bundle)


@pytest.fixture
def published(private_servers, folder):
    """A worker and a publisher that only notifications wake, on servers of their own; v1 is active."""
    endpoints = private_servers.endpoints
    migrate(endpoints.database_url)
    with Registry(endpoints.database_url) as registry:
        for version in ("v1", "v2", "v3"):
            register(registry, version)
        registry.activate(STRATEGY, "v1")
        fleet = Fleet(endpoints, folder, reconcile_seconds=3600)
        try:
            yield fleet, registry, fleet.worker(), Streams(endpoints.redis_url, "signals")
        finally:
            fleet.end()


def told(streams: Streams) -> list[str]:
    return [dict(zip(flat[::2], flat[1::2], strict=True))[b"activation"].decode() for flat in entries(streams)]


def entries(streams: Streams) -> list[list[bytes]]:
    return [list(fields) for _, fields in streams.client.xrange("signals:control")]


def test_registry_killed_between_commit_and_notification_is_announced_by_polling(published, private_servers):
    fleet, registry, worker, streams = published
    publisher = fleet.start("publish-registry", "--poll-seconds", "3600")
    assert wait_until(lambda: told(streams) == ["1"], PATIENCE)
    publisher.signal(signal.SIGSTOP)

    activation = registry.activate(STRATEGY, "v2").activation
    private_servers.kill("postgres")
    publisher.signal(signal.SIGCONT)
    publisher.await_event("registry_away")
    private_servers.start()

    worker.await_event("fleet_event", kind="models.loaded", activation=activation)
    streams.add(REQUEST)
    assert wait_until(lambda: [vector.model_version for vector in streams.results()] == ["v2"], PATIENCE)
    assert told(streams)[-1] == str(activation)


def test_event_sent_twice_loads_nothing_twice(published, private_servers):
    fleet, registry, worker, streams = published
    fleet.start("publish-registry")
    second = registry.activate(STRATEGY, "v2").activation
    worker.await_event("fleet_event", kind="models.loaded", activation=second)
    third = registry.activate(STRATEGY, "v3").activation
    worker.await_event("fleet_event", kind="models.loaded", activation=third)

    # As a publisher does that was killed before its mark; and late, as one does that was stopped.
    sql(private_servers.endpoints.database_url, "UPDATE registry_outbox SET published_at = NULL")
    assert wait_until(lambda: len(told(streams)) == 6, PATIENCE)
    streams.client.xadd("signals:control", {"type": "ping"})
    worker.await_event("fleet_event", kind="worker.pong")

    assert [event["activation"] for event in worker.events("fleet_event") if event["kind"] == "models.loaded"] == [
        1,
        second,
        third,
    ]
    streams.add(REQUEST)
    assert wait_until(lambda: [vector.activation for vector in streams.results()] == [third], PATIENCE)


def test_number_that_a_failover_gave_to_another_version_is_noticed(published, private_servers):
    _, registry, worker, streams = published
    lost = registry.activate(STRATEGY, "v2").activation
    assert lost == 2
    streams.client.xadd("signals:control", {"type": "reload"})
    worker.await_event("fleet_event", kind="models.loaded", version="v2")

    # What a standby has that the last commit never reached; only the database's owner can make it.
    sql(private_servers.endpoints.database_url, WITHOUT_SECOND_ACTIVATION)
    assert registry.activate(STRATEGY, "v3").activation == lost
    streams.client.xadd("signals:control", {"type": "reload"})

    worker.await_event("fleet_event", kind="models.loaded", version="v3", activation=lost)
    streams.add(REQUEST)
    assert wait_until(lambda: [vector.model_version for vector in streams.results()] == ["v3"], PATIENCE)


def test_workers_whose_clocks_are_hours_off_lose_and_misattribute_nothing(published, private_servers):
    fleet, registry, worker, streams = published
    worker.end()
    skewed = [
        fleet.execute(hours, "run", module="tests.support.skewed_worker", worker_name=f"w{place}")
        for place, hours in enumerate(("6", "-6"))
    ]
    for one in skewed:
        one.await_event("fleet_event", kind="worker.started")

    asked = []
    # By the server's clock: one that is ahead would have given all of them up.
    deadline = (datetime.now(UTC) + timedelta(minutes=10)).isoformat().replace("+00:00", "Z")
    for version in ("v2", "v3", "v1"):
        asked += streams.add({**REQUEST, "deadline": deadline}, times=10)
        activation = registry.activate(STRATEGY, version).activation
        streams.client.xadd("signals:control", {"type": "reload"})
        for one in skewed:
            one.await_event("fleet_event", kind="models.loaded", activation=activation)
    skewed[0].signal(signal.SIGKILL)
    asked += streams.add(REQUEST, times=10)

    assert wait_until(lambda: len(streams.results()) == len(asked) and streams.pending() == 0, PATIENCE)
    skewed[1].end()
    verdict = judge(streams, private_servers.endpoints.database_url, fleet.folder, asked)
    assert not verdict.faults.keys() - {"early", "untold", "unpublished"}, str(verdict)
