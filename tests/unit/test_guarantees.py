import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMED = sorted({named for page in PAGES for named in re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text("utf-8"))})


def test_guarantees_name_tests_at_all():
    assert len(NAMED) > 20


def test_sum_of_the_long_run_is_that_of_its_page():
    rows = dict(re.findall(r"^\| ([\w ,]+) \| ([\d,]+) \|$", (ROOT / "docs/soak.md").read_text("utf-8"), re.MULTILINE))
    told = re.search(
        r"asked ([\d,]+) requests under ([\d,]+) faults: ([\d,]+) lost, ([\d,]+) doubled, ([\d,]+) wrong",
        (ROOT / "docs/guarantees.md").read_text("utf-8"),
    )

    assert told is not None
    assert list(told.groups()) == [
        rows[name]
        for name in ("requests", "faults injected from outside", "lost", "doubled", "other than computed directly")
    ]


@pytest.mark.parametrize("named", NAMED)
def test_named_test_is_there(named):
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
