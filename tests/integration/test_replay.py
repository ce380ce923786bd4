import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from contracts import SignalVector
from strategies.errors import GoldenSampleMismatch
from strategies.models import bundle_store
from strategies.models.bundle_store import load_bare_model, load_bundle
from tests.support.fleet import PATIENCE, Fleet
from tests.support.market import make_bars, write_snapshot
from tests.support.models import make_bare_model
from tests.support.published import Press, command_line
from tests.support.serving import NOW, put_hash
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.cli._common import ExitCode
from worker.embedded import Endpoints
from worker.embedded.processes import wait_until
from worker.operations.archive import Archive, archive_stream
from worker.registry.registry import Registry
from worker.runtime import code_version
from worker.serving.slots import ActiveBundle

#: The UTC day that vectors are published on, unless a test says otherwise.
DAY = datetime(2024, 1, 3, 12, tzinfo=UTC)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A snapshot, and bundles v1 and v2 trained on it."""
    return build_world(tmp_path_factory.mktemp("world"), ("v1", "v2"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def press(folder, streams):
    return Press(folder, streams)


@pytest.fixture
def call(folder, streams, valkey_url):
    return command_line(folder, streams, valkey_url)


def bundle_of(folder, version):
    return folder / "artifacts" / "models" / STRATEGY / version


def serve(press, **bundles):
    """Let vectors of these versions come from these bundles, wherever they were loaded from."""
    for version, bundle in bundles.items():
        press._bundles[version] = ActiveBundle(bundle=bundle, activation=1, since=NOW)


def archived_and_cut(folder, streams):
    """Let the vectors stand in the archive alone."""
    archive_stream(streams.client, Archive(folder / "data", streams.names.results, SignalVector))
    streams.client.xtrim(streams.names.results, maxlen=0)


def test_vector_of_a_worker_replays_identically(call, folder, streams, valkey_url, database_url):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), folder, namespace=streams.names.namespace)
    try:
        fleet.worker()
        streams.add({"strategy": STRATEGY, "symbols": "MSFT,AAPL,IBM", "top_n": "1", "request_id": "mine"})
        streams.add({"strategy": STRATEGY, "as_of": "2013-12-24T12:00:00Z"})
        assert wait_until(lambda: len(streams.results()) == 2, PATIENCE)
    finally:
        fleet.end()
    names = ["mine", *(entry_id.decode() for entry_id, _ in streams.client.xrange(streams.names.results))]

    results = [call("replay", name, "--json") for name in names]

    assert [result.exit_code for result in results] == [0, 0, 0]
    first, second, third = (json.loads(result.stdout) for result in results)
    assert first == second
    assert (first["request_id"], first["outcome"], first["differences"], first["notes"]) == (
        "mine",
        "identical",
        [],
        [],
    )
    assert third["entry_id"] == names[2]


def test_changed_number_is_shown_in_a_table(call, press):
    vector = press.vector("forged")
    signals = (vector.weights[0].model_copy(update={"predicted_return": 0.125}), *vector.weights[1:])
    entry_id = press.publish(vector.model_copy(update={"weights": signals}), DAY)

    result = call("replay", entry_id)

    assert result.exit_code == 1
    assert result.stdout.startswith("different: ")
    (row,) = [line for line in result.stdout.splitlines() if "predicted_return" in line]
    assert row.split() == [
        "predicted_return",
        vector.weights[0].symbol,
        "0.125",
        repr(vector.weights[0].predicted_return),
    ]


def test_archive_answers_when_the_stream_was_cut(call, press, folder, streams):
    entry_id = press.publish(press.vector("old"), DAY)
    archived_and_cut(folder, streams)

    by_entry, by_request = call("replay", entry_id, "--json"), call("replay", "old", "--json")

    assert (by_entry.exit_code, by_request.exit_code) == (0, 0)
    assert json.loads(by_entry.stdout) == json.loads(by_request.stdout)
    assert json.loads(by_entry.stdout)["found_in"] == "archive"


def test_archive_alone_needs_no_server(folder, press, streams, free_port):
    press.publish(press.vector("old"), DAY)
    archived_and_cut(folder, streams)
    nowhere = command_line(folder, streams, f"redis://127.0.0.1:{free_port}")

    assert nowhere("replay", "old").exit_code == ExitCode.UNAVAILABLE
    assert nowhere("replay", "old", "--offline").exit_code == 0
    assert nowhere("replay", "--since", "2024-01-01", "--offline").exit_code == 0


def test_request_id_is_found_after_it_was_forgotten(call, press):
    press.publish(press.vector("other"), DAY)
    press.publish(press.vector("forgotten"), DAY)

    result = call("replay", "forgotten", "--json")

    assert json.loads(result.stdout)["request_id"] == "forgotten"


def test_rejected_and_unknown_requests_have_no_vector(call, streams):
    key = streams.names.request("refused")
    put_hash(streams.client, key, {"state": "rejected", "entry": "7-0", "stream": streams.names.rejections})

    refused, unknown, garbage = call("replay", "refused"), call("replay", "nobody"), call("replay", "1-1")

    assert [result.exit_code for result in (refused, unknown, garbage)] == [3, 3, 3]
    assert "was rejected, as entry 7-0" in refused.stderr
    assert "no vector of entry or request nobody" in unknown.stderr


def test_missing_bundle_is_named(call, press, folder):
    entry_id = press.publish(press.vector("r"), DAY)
    shutil.rmtree(bundle_of(folder, "v1"))

    result = call("replay", entry_id)

    assert result.exit_code == 3
    assert result.stdout.startswith("not reproducible: ")
    assert f"there is nothing at {bundle_of(folder, 'v1')}" in result.stdout


def test_missing_snapshot_is_named(call, press, folder):
    vector = press.vector("r")
    entry_id = press.publish(vector, DAY)
    shutil.rmtree(folder / "data" / "adjusted")

    result = call("replay", entry_id)

    assert result.exit_code == 3
    assert f"snapshot {vector.snapshot_id}" in result.stdout


def test_damaged_bundle_proves_nothing_of_the_vector(call, press, folder):
    entry_id = press.publish(press.vector("r"), DAY)
    model = bundle_of(folder, "v1") / "model.txt"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes() + b"\n")

    result = call("replay", entry_id)

    assert result.exit_code == 3
    assert "model.txt has SHA-256" in result.stdout


def test_bundle_replaced_under_its_version_is_named_by_digest(call, press, folder):
    vector = press.vector("r")
    entry_id = press.publish(vector, DAY)
    shutil.rmtree(bundle_of(folder, "v1"))
    build_world(folder / "elsewhere", ("v2", "v1"))
    shutil.copytree(bundle_of(folder / "elsewhere", "v1"), bundle_of(folder, "v1"))

    result = call("replay", entry_id, "--json")

    assert result.exit_code == 1
    fields = {difference["field"]: difference for difference in json.loads(result.stdout)["differences"]}
    assert fields["bundle_sha256"]["published"] == vector.bundle_sha256
    assert {"model_sha256", "weights_sha256"} <= fields.keys()
    assert "snapshot_id" not in fields


def test_bundle_moved_elsewhere_is_found_by_digest(call, press, folder):
    entry_id = press.publish(press.vector("r"), DAY)
    bundle_of(folder, "v1").rename(bundle_of(folder, "kept-v1"))

    assert call("replay", entry_id).exit_code == 0


def test_versions_at_other_registered_paths_replay_identically(call, press, folder):
    root = folder / "artifacts"
    make_bare_model(root / "plain.txt")
    (root / "releases").mkdir()
    bundle_of(folder, "v1").rename(root / "releases" / "v1")
    plain = load_bare_model(root / "plain.txt", STRATEGY, "plain")
    serve(press, v1=load_bundle(root / "releases" / "v1"), plain=plain)
    for version in ("v1", "plain"):
        press.publish(press.vector(version, version=version), DAY)

    result = call("replay", "--since", "2024-01-01", "--json")

    assert result.exit_code == 0
    assert {(one["model_version"], one["outcome"]) for one in json.loads(result.stdout)["findings"]} == {
        ("v1", "identical"),
        ("plain", "identical"),
    }


def test_bundle_that_no_longer_proves_itself_is_reported(call, press, monkeypatch):
    entry_id = press.publish(press.vector("r"), DAY)

    def fail(*_arguments):
        raise GoldenSampleMismatch("prediction of AAPL was 1.0, expected 2.0")

    monkeypatch.setattr(bundle_store, "replay_golden", fail)
    result = call("replay", entry_id, "--json")

    finding = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [difference["field"] for difference in finding["differences"]] == ["proven"]
    assert "does not prove itself here: prediction of AAPL" in finding["notes"][0]


def test_changed_code_and_libraries_are_noted(call, press, folder):
    entry_id = press.publish(press.vector("r"), DAY)

    finding = json.loads(call("replay", entry_id, "--json").stdout)

    assert finding["outcome"] == "identical"
    assert finding["notes"] == [f"code version was 0.0.1, here it is {code_version()}"]
    assert bundle_of(folder, "v1").is_dir()


def test_newer_snapshot_beside_it_changes_nothing(call, press, folder):
    entry_id = press.publish(press.vector("r"), DAY)
    bars = {symbol: make_bars(sessions=310, seed=row + 50) for row, symbol in enumerate(SYMBOLS)}
    write_snapshot(folder / "data", bars, run_date=datetime(2031, 1, 2, tzinfo=UTC).date())

    assert call("replay", entry_id).exit_code == 0


def test_audit_counts_a_period_on_stream_and_archive(call, press, folder, streams):
    for number in range(6):
        press.publish(press.vector(f"a{number}", version="v1", session=-1 - number), DAY - timedelta(days=2))
    archived_and_cut(folder, streams)
    for number in range(4):
        press.publish(press.vector(f"s{number}", version="v2", session=-1 - number), DAY + timedelta(days=number))
    forged = press.vector("forged").model_copy(update={"horizon": "tomorrow"})
    forged_id = press.publish(forged, DAY + timedelta(days=9))
    streams.client.xadd(streams.names.results, {"hand": "made"})

    whole = call("replay", "--since", "2024-01-01")
    clean = call("replay", "--since", "2024-01-02", "--until", "2024-01-04", "--json")

    assert whole.exit_code == 1
    rows = [line.split()[1:] for line in whole.stdout.splitlines() if line.startswith("alpha_baseline")]
    assert [(version, *map(int, counts)) for version, _, *counts in rows] == [("v1", 6, 1, 0), ("v2", 4, 0, 0)]
    assert f"different: entry {forged_id}" in whole.stdout
    assert clean.exit_code == 0
    assert {finding["request_id"] for finding in json.loads(clean.stdout)["findings"]} == {"s0", "s1"}


def test_audit_draws_the_same_sample_from_the_same_seed(call, press):
    for number in range(12):
        press.publish(press.vector(f"r{number}", session=-1 - number), DAY)

    def drawn(seed):
        result = call("replay", "--since", "2024-01-01", "--sample", "4", "--seed", seed, "--json")
        found = json.loads(result.stdout)
        assert (found["published"], found["replayed"]) == (12, 4)
        return {finding["entry_id"] for finding in found["findings"]}

    assert drawn("1") == drawn("1")
    assert drawn("1") != drawn("2")


def test_audit_distinguishes_missing_from_different(call, press, folder):
    press.publish(press.vector("one", version="v1"), DAY)
    press.publish(press.vector("two", version="v2"), DAY)
    shutil.rmtree(bundle_of(folder, "v2"))

    result = call("replay", "--since", "2024-01-01", "--json")

    assert result.exit_code == 3
    outcomes = {one["request_id"]: one["outcome"] for one in json.loads(result.stdout)["findings"]}
    assert outcomes == {"one": "identical", "two": "not reproducible"}


def test_audit_of_an_empty_period_is_no_success(call):
    result = call("replay", "--since", "2024-01-01")

    assert result.exit_code == 3
    assert "no vector was published" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("r-1", "--since", "2024-01-01")], ids=["neither", "both"])
def test_wrong_call_is_one_sentence(call, arguments):
    result = call("replay", *arguments)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
