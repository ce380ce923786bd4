"""Qlib is installed wherever it can be, so that no interpreter silently goes without the live comparison."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def required():
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    found = [Requirement(text) for texts in extras.values() for text in texts if text.startswith("pyqlib")]
    return any(each.marker is None or each.marker.evaluate() for each in found)


def test_qlib_is_installed_where_the_project_asks_for_it():
    assert required() == (find_spec("qlib") is not None)
