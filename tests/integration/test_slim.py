"""The image's packages as deploy/slim.sh leaves them: small, and enough for a worker to answer."""

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.compose import ROOT
from tests.support.serving import Streams
from tests.support.world import STRATEGY, SYMBOLS, register
from worker.embedded.processes import Launch, end, find, launch, wait_until
from worker.registry.registry import Registry
from worker.settings import inherited_environment

#: Of the packages that serving installs, in MB; 448 on Linux, 600 before.
LARGEST = 480
#: Imported where an extra is installed, and only there.
OF_EXTRAS = {"alphalens", "jinja2", "matplotlib", "mlflow", "opentelemetry", "qlib", "sqlalchemy"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import contracts, strategies, worker
for package in (contracts, strategies, worker):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(error.name.partition(".")[0])
"""


def serving_packages():
    """Names of the installed packages that the project requires without an extra, and of those that they require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, waiting = set(), [Requirement(entry) for entry in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        for extra in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), extra)
            if key in found:
                continue
            found.add(key)
            required = map(Requirement, metadata.requires(requirement.name) or [])
            waiting += [each for each in required if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folder with copies of what serving installs, slimmed as in the image."""
    site = tmp_path_factory.mktemp("image") / "lib" / "site-packages"
    site.mkdir(parents=True)
    for name in sorted(serving_packages()):
        files = metadata.distribution(name).files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            place = Path(str(metadata.distribution(name).locate_file(top)))
            if place.is_dir():
                shutil.copytree(place, site / top, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, site / top)
    # The project's own modules come from the tree, its version from here.
    own = metadata.distribution("signal-worker").locate_file("")
    for place in Path(str(own)).glob("signal_worker-*.dist-info"):
        shutil.copytree(place, site / place.name)
    strip = ["--strip"] if shutil.which("strip") else []
    subprocess.run([ROOT / "deploy" / "slim.sh", site.parents[1], *strip], check=True)
    return site


@pytest.fixture
def environment(packages):
    """Variables with which an interpreter without its own packages (-S) finds these and the project."""
    variables = inherited_environment() | {
        "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    variables.pop("COVERAGE_PROCESS_CONFIG", None)
    return variables


def test_packages_are_small_and_without_tests_and_byte_code(packages):
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
    left = [str(path) for name in ("tests", "__pycache__") for path in packages.rglob(name) if path.is_dir()]

    assert left == []
    assert size / 1e6 < LARGEST


def test_worker_with_slimmed_packages_answers(environment, two_versions, valkey_url, database_url, namespace, tmp_path):
    with Registry(database_url) as registry:
        register(registry, "v1")
        registry.activate(STRATEGY, "v1")
    environment |= {
        "REDIS_URL": valkey_url,
        "DATABASE_URL": database_url,
        "SIGNALS_NAMESPACE": namespace,
        "SIGNALS_DATA_DIR": str(two_versions / "data"),
        "SIGNALS_ARTIFACTS_DIR": str(two_versions / "artifacts"),
        "SIGNALS_DEFAULT_AS_OF": "snapshot",
    }
    streams = Streams(valkey_url, namespace)
    command = (sys.executable, "-S", "-m", "worker", "run")
    log = tmp_path / "run.log"
    worker = launch(
        Launch(command=command, log=log, death_signal=signal.SIGKILL, environment=environment, folder=tmp_path)
    )

    try:
        streams.add({"strategy": STRATEGY, "symbols": ",".join(SYMBOLS)})
        assert wait_until(lambda: streams.results() or streams.rejections() or worker.poll() is not None, 120)
        assert [len(vector.weights) for vector in streams.results()] == [len(SYMBOLS)], log.read_text(encoding="utf-8")
    finally:
        process = find(worker.pid, (Path(sys.executable).name, "-S"))
        if process is not None:
            end(process, (signal.SIGTERM, signal.SIGKILL))


def test_every_module_is_imported_but_for_those_of_extras(environment):
    done = subprocess.run(
        [sys.executable, "-S", "-c", _IMPORT_EVERYTHING], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= OF_EXTRAS
