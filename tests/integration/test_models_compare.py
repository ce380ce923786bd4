import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import stats

from contracts import SignalVector
from contracts.codec import encode
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from tests.support.evidence import Shadowing
from tests.support.published import Press, command_line
from tests.support.world import STRATEGY, register
from worker.cli import models_compare
from worker.cli._common import ExitCode
from worker.operations.archive import Archive, archive_stream
from worker.operations.comparison import published
from worker.registry.registry import Registry

DAY = datetime(2024, 1, 3, 12, tzinfo=UTC)
#: The last sessions of the world; none of them was trained on, of the last two the returns are not known yet.
SESSIONS = range(-8, 0)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def panel(two_versions):
    snapshot = latest_snapshot(two_versions / "data")
    return load_panel(snapshot, SessionCalendar(snapshot.calendar))


@pytest.fixture
def shadowing(two_versions, streams):
    return Shadowing(Press(two_versions, streams), streams, DAY)


@pytest.fixture
def registered(database_url):
    with Registry(database_url) as registry:
        register(registry, "v1")
        register(registry, "v2")
    return database_url


@pytest.fixture
def call(two_versions, streams, valkey_url, registered):
    return command_line(two_versions, streams, valkey_url, DATABASE_URL=registered)


def compared(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_pairs_of_the_streams_are_measured(call, shadowing, panel):
    shadowing.pairs(SESSIONS)

    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))

    assert (found["pairs"], len(found["sessions"])) == (8, 8)
    assert found["overall"]["left"]["sessions"]["known"] == 6
    assert found["overall"]["right"]["sessions"]["not known yet"] == 2
    assert found["overall"]["right"]["compute_ms_p50"] == 3.0
    assert found["sessions"][-1]["right"]["rank_ic"] is None
    first, vector = found["sessions"][0], shadowing.vector(-8, version="v2")
    close = panel.fields["close"][panel.rows([signal.symbol for signal in vector.weights])]
    predictions = [signal.predicted_return for signal in vector.weights]
    assert first["session"] == str(vector.as_of)
    assert first["right"]["rank_ic"] == pytest.approx(stats.spearmanr(predictions, close[:, -6] / close[:, -7])[0])


def test_whatever_is_left_out_is_counted(call, shadowing, streams):
    shadowing.pairs(SESSIONS)
    shadowing.results(shadowing.vector(-1))
    shadowing.results(shadowing.vector(-1, request_id="left"))
    shadowing.shadow(shadowing.vector(-1, version="v2", request_id="right"))
    shadowing.results(shadowing.vector(-1, request_id="apart"))
    shadowing.shadow(shadowing.vector(-2, version="v2", request_id="apart"))
    shadowing.results(shadowing.vector(-1, request_id="bars"))
    shadowing.shadow(shadowing.vector(-1, version="v2", request_id="bars"), snapshot_id="f" * 64)
    shadowing.results(shadowing.vector(-1, request_id="twice"))
    shadowing.shadow(shadowing.vector(-1, version="v2", request_id="twice"))
    shadowing.shadow(shadowing.vector(-2, version="v2", request_id="twice"))
    shadowing.results(shadowing.vector(-1, request_id="foreign"))
    shadowing.shadow(shadowing.vector(-1, version="v2", request_id="foreign"), bundle_sha256="e" * 64)
    shadowing.shadow(shadowing.vector(-1, version="v2", request_id="other"), model_version="v9")

    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))

    assert found["pairs"] == 8
    assert {name: count for name, count in found["left_out"].items() if count} == {
        "read": streams.client.xlen(streams.names.results) + streams.client.xlen(streams.names.shadow),
        "of_others": 1,
        "duplicates": 1,
        "contradictions": 1,
        "left_alone": 1,
        "right_alone": 1,
        "of_another_bundle": 1,
        "of_other_sessions": 1,
        "of_other_bars": 1,
    }


def test_garbage_on_the_shadow_stream_is_counted_and_ends_nothing(call, shadowing, streams):
    shadowing.pairs(SESSIONS)
    for request_id in ("torn", "forged"):
        shadowing.results(shadowing.vector(-1, request_id=request_id))
    torn = encode(shadowing.vector(-1, version="v2", request_id="torn")) | {"weights": "[{"}
    forged = encode(shadowing.vector(-1, version="v2", request_id="forged"))
    forged |= {"weights_sha256": "0" * 64}
    for fields in ({"nothing": "known"}, {b"\xff\xfe": b"\xff"}, torn, forged):
        streams.client.xadd(streams.names.shadow, fields)

    result = call("models", "compare", STRATEGY, "v1", "v2")

    assert result.exit_code == 0
    assert "8 pairs on 8 sessions" in result.stdout
    assert "4 entries are no vector, left out" in result.stdout


def test_symbols_that_differ_in_a_pair_are_reported(call, shadowing):
    shadowing.pairs(SESSIONS)
    vector = shadowing.vector(-1, version="v2", request_id="fewer")
    fewer = vector.weights[1:]
    shadowing.results(shadowing.vector(-1, request_id="fewer"))
    shadowing.shadow(vector, weights=fewer, weights_sha256=published.weights_digest(fewer))

    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))

    assert (found["pairs"], found["pairs_of_other_symbols"]) == (9, 1)


def test_archive_answers_for_what_was_cut(shadowing, streams, two_versions, tmp_path, valkey_url, registered):
    folder = shutil.copytree(two_versions, tmp_path / "work")
    call = command_line(folder, streams, valkey_url, DATABASE_URL=registered)
    shadowing.pairs(SESSIONS[:5])
    for stream in (streams.names.results, streams.names.shadow):
        archive_stream(streams.client, Archive(folder / "data", stream, SignalVector))
        streams.client.xtrim(stream, maxlen=1)
    shadowing.pairs(SESSIONS[5:])

    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))

    assert found["pairs"] == 8
    assert (found["left_out"]["read"], found["left_out"]["duplicates"]) == (16, 0)


def test_latest_pairs_are_taken_where_fewer_are_asked(call, shadowing, monkeypatch):
    monkeypatch.setattr(published, "PIECE", 2)
    shadowing.pairs(SESSIONS)

    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--last", "3", "--json"))
    none = call("models", "compare", STRATEGY, "v1", "v2", "--since", "2024-01-04")

    assert [one["session"] for one in found["sessions"]] == [str(shadowing.vector(at).as_of) for at in SESSIONS[5:]]
    assert found["left_out"]["older"] == 5
    assert none.exit_code == 3
    assert "no pair of alpha_baseline v1 and v2" in none.stderr


def test_recomputed_answers_are_those_that_were_published(
    call, shadowing, two_versions, streams, registered, free_port
):
    shadowing.pairs(SESSIONS)
    nowhere = command_line(two_versions, streams, f"redis://127.0.0.1:{free_port}", DATABASE_URL=registered)

    streamed = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))
    again = compared(nowhere("models", "compare", STRATEGY, "v1", "v2", "--recompute", "--sessions", "6", "--json"))

    assert nowhere("models", "compare", STRATEGY, "v1", "v2").exit_code == ExitCode.UNAVAILABLE
    assert again["sessions"] == streamed["sessions"]
    assert again["overall"]["likeness"] == streamed["overall"]["likeness"]
    assert again["overall"]["right"]["compute_ms_p99"] > 0


def test_sessions_that_training_saw_are_no_evidence(call):
    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--recompute", "--sessions", "200", "--json"))

    counted = found["overall"]["right"]["sessions"]
    assert counted["seen in training"] > 100
    assert counted["known"] > 20
    assert all(one["right"]["rank_ic"] is None for one in found["sessions"][:100])


def test_comparison_is_drawn(call, tmp_path):
    plot = tmp_path / "compared.png"

    result = call("models", "compare", STRATEGY, "v1", "v2", "--recompute", "--sessions", "5", "--plot", str(plot))

    assert result.exit_code == 0, result.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_plot_that_cannot_be_is_refused_before_anything_is_computed(call, tmp_path, monkeypatch):
    wrong = call("models", "compare", STRATEGY, "v1", "v2", "--plot", str(tmp_path / "plot.gif"))
    monkeypatch.setattr(models_compare, "find_spec", lambda _name: None)
    missing = call("models", "compare", STRATEGY, "v1", "v2", "--plot", str(tmp_path / "plot.png"))

    assert (wrong.exit_code, missing.exit_code) == (2, 2)
    assert "--plot draws .png and .svg" in wrong.stderr
    assert "needs matplotlib, which is not installed" in missing.stderr


def test_versions_that_cannot_be_compared_are_named(call):
    twice = call("models", "compare", STRATEGY, "v1", "v1")
    unknown = call("models", "compare", STRATEGY, "v1", "v7")

    assert (twice.exit_code, unknown.exit_code) == (2, 3)
    assert unknown.stderr == "signal-worker: strategy alpha_baseline has no version v7\n"


def test_missing_bundle_leaves_its_returns_unmeasured(
    shadowing, streams, two_versions, tmp_path, valkey_url, registered
):
    shadowing.pairs(SESSIONS)
    folder = shutil.copytree(two_versions, tmp_path / "work")
    shutil.rmtree(folder / "artifacts" / "models" / STRATEGY / "v1")
    call = command_line(folder, streams, valkey_url, DATABASE_URL=registered)

    result = call("models", "compare", STRATEGY, "v1", "v2")
    found = compared(call("models", "compare", STRATEGY, "v1", "v2", "--json"))
    again = call("models", "compare", STRATEGY, "v1", "v2", "--recompute")

    assert "v1 is not proven here: there is nothing at" in result.stdout
    assert found["overall"]["left"]["sessions"]["not measurable"] == 8
    assert found["overall"]["right"]["sessions"]["known"] == 6
    assert np.isfinite(found["overall"]["likeness"]["rank_correlation"])
    assert (again.exit_code, "v1 cannot be computed again" in again.stderr) == (1, True)
