import json
import shutil
from datetime import date

import pytest
from typer.testing import CliRunner

from tests.support.market import make_bars, write_snapshot
from tests.support.world import STRATEGY, SYMBOLS, build_world, register
from worker.cli.main import app
from worker.registry.registry import Registry

#: All of the world.
SESSIONS = "300"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"), ("v1", "v2"))


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "work")


@pytest.fixture
def call(folder, database_url):
    with Registry(database_url) as registry:
        for version in ("v1", "v2"):
            register(registry, version)
        registry.activate(STRATEGY, "v1")
    environment = {
        "DATABASE_URL": database_url,
        "SIGNALS_DATA_DIR": str(folder / "data"),
        "SIGNALS_ARTIFACTS_DIR": str(folder / "artifacts"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    return lambda *words: CliRunner(env=environment).invoke(app, ["models", "drift", *words])


def short(feature):
    """Whether a feature looks back so little that a world of 300 sessions has many independent values of it."""
    window = feature.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return int(window or 0) <= 5


def doubled(seed):
    """Return the world's bars with twice the logarithm of every return, within a day and from day to day."""
    bars = make_bars(sessions=300, seed=seed)
    start = bars["close"].iloc[0]
    for name in ("open", "high", "low", "close"):
        bars[name] = start * (bars[name] / start) ** 2
    return bars


def test_unchanged_world_drifts_little(call):
    shown = call(STRATEGY, "--sessions", SESSIONS, "--fail-above", "0.25", "--json")

    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert (report["version"], report["sessions"], report["symbols"]) == ("v1", 300, len(SYMBOLS))
    assert report["prediction"]["level"] == "stable"
    assert len(report["features"]) == 158
    assert [one for one in report["features"] if short(one["name"]) and one["level"] == "major"] == []


def test_doubled_volatility_is_reported_and_ends_with_its_own_exit_code(call, folder):
    write_snapshot(
        folder / "data", {symbol: doubled(row) for row, symbol in enumerate(SYMBOLS)}, run_date=date(2031, 1, 2)
    )

    shown = call(STRATEGY, "--sessions", SESSIONS, "--fail-above", "0.1", "--json")

    assert shown.exit_code == 5
    features = {one["name"]: one for one in json.loads(shown.stdout)["features"]}
    assert {features[name]["level"] for name in ("KLEN", "STD5")} == {"major"}
    assert {features[name]["level"] for name in ("CNTP5", "VMA5", "WVMA5")}.isdisjoint({"major"})


def test_named_version_is_compared_and_shown_with_the_prediction_first(call):
    shown = call(STRATEGY, "v2", "--top", "3")

    assert shown.exit_code == 0
    assert "alpha_baseline v2 against its training rows: 80 rows of 4 symbols" in shown.stdout
    rows = [line for line in shown.stdout.splitlines() if line.endswith("%")]
    assert len(rows) == 4
    assert rows[0].startswith("prediction ")


def test_strategy_without_an_active_version_is_not_found(call):
    shown = call("nobody")

    assert shown.exit_code == 3
    assert "no active version" in shown.stderr


def test_unknown_version_is_not_found(call):
    assert call(STRATEGY, "v9").exit_code == 3


def test_bundle_that_is_gone_is_a_sentence(call, folder):
    shutil.rmtree(folder / "artifacts" / "models" / STRATEGY / "v1")

    shown = call(STRATEGY)

    assert shown.exit_code == 1
    assert "there is nothing at" in shown.stderr
