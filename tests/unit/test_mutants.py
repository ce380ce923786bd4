"""The table of changes to the server's scripts follows the scripts."""

import pytest

from tests.mutants.scripts import MUTANTS, ROOT, SCRIPTS, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{each.script}-{at}" for at, each in enumerate(MUTANTS)])
def test_every_change_fits_its_script(mutant):
    text = (ROOT / SCRIPTS / f"{mutant.script}.lua").read_text(encoding="utf-8")

    assert mutated(mutant, text) != text


def test_every_script_has_changes():
    assert {path.stem for path in (ROOT / SCRIPTS).glob("*.lua")} == {mutant.script for mutant in MUTANTS}
