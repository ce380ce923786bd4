import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMED = sorted({named for page in PAGES for named in re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text("utf-8"))})


def test_guarantees_name_tests_at_all():
    assert len(NAMED) > 20


@pytest.mark.parametrize("named", NAMED)
def test_named_test_is_there(named):
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
