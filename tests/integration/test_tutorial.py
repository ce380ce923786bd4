import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from strategies.models.bundle_store import load_bundle
from tests.support.fleet import Fleet
from tests.support.world import build_world
from worker.cli.main import app
from worker.embedded import Endpoints

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial-own-feature-set.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("world"), ())


def test_page_can_be_followed_line_by_line(monkeypatch, valkey_url, database_url, namespace, world, tmp_path):
    folder = shutil.copytree(world, tmp_path / "work")
    monkeypatch.chdir(folder)
    for name, value in {"REDIS_URL": valkey_url, "DATABASE_URL": database_url, "SIGNALS_NAMESPACE": namespace}.items():
        monkeypatch.setenv(name, value)
    for name, text in re.findall(r"`([\w-]+\.yaml)`:.*?```yaml\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).write_text(text, encoding="utf-8")
    fleet = Fleet(Endpoints(redis_url=valkey_url, database_url=database_url), folder, namespace=namespace)
    worker = fleet.worker(reconcile_seconds=0.3)

    shown = ""
    try:
        for line in re.findall(r"^signal-worker (.+)$", PAGE, re.MULTILINE):
            if line.startswith("request"):
                worker.await_event("fleet_event", kind="models.loaded", strategy="momentum")
            typed = CliRunner().invoke(app, shlex.split(line))
            assert typed.exit_code == 0, f"{line}\n{typed.output}"
            shown = typed.stdout
    finally:
        fleet.end()

    assert "momentum v1, as of 2014-03-12" in shown
    bundle = load_bundle(folder / "artifacts" / "models" / "momentum" / "v1")
    assert bundle.feature_set.names == ("MOM5", "MOM20", "VOL20", "RANGE", "TREND20", "LIQ")
    assert bundle.proven
