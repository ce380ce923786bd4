import re
import tomllib

import pytest

from tests.support.compose import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8").split()
    if "==" in line
)


def declared():
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    names = {re.match(r"[A-Za-z0-9-]+", entry).group() for entries in lists for entry in entries}
    return sorted(names - {PROJECT["name"]})


@pytest.mark.parametrize("name", declared())
def test_every_dependency_has_its_reason_and_tested_version(name):
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")

    assert re.search(rf"\b{re.escape(name)}\b", reasons)
    assert name.lower() in {pinned.lower().replace("_", "-") for pinned in PINNED}
