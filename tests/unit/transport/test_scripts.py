import re
from importlib import resources

import pytest

from worker.transport.scripts import CommitOutcome, Script

SCRIPTS = Script.__subclasses__()
_HEADER = re.compile(r"-- (KEYS|ARGV)\[(\d+)(\.\.)?\]\s+(\w+)\s")


def header(script):
    """Return the names in the header of a script's file: keys, arguments, and what follows those."""
    found = _HEADER.findall(script.source())
    keys = [(int(place), name) for kind, place, _, name in found if kind == "KEYS"]
    arguments = [(int(place), name) for kind, place, more, name in found if kind == "ARGV" and not more]
    rest = [(int(place), name) for kind, place, more, name in found if more]
    return keys, arguments, rest


def test_every_file_is_declared_once():
    files = {path.name for path in resources.files("worker.transport").joinpath("lua").iterdir()}

    assert sorted(f"{script.name}.lua" for script in SCRIPTS) == sorted(files)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_header_names_keys_and_arguments_as_declared(script):
    keys, arguments, rest = header(script)
    declared = script.declaration()

    assert keys == list(enumerate(declared.keys, start=1))
    assert arguments == list(enumerate(declared.arguments, start=1))
    assert rest == ([(len(declared.arguments) + 1, declared.rest)] if declared.rest else [])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_body_uses_no_place_that_is_not_declared(script):
    declared = script.declaration()
    places = {(kind, int(place)) for kind, place in re.findall(r"(KEYS|ARGV)\[(\d+)\]", script.source())}

    assert places == {("KEYS", place) for place, _ in enumerate(declared.keys, start=1)} | {
        ("ARGV", place) for place, _ in enumerate(declared.arguments, start=1)
    }


def test_call_gives_keys_and_arguments_in_their_order():
    call = CommitOutcome(
        outcome=["a", "1"],
        fingerprint="f",
        deadline_ms="",
        remember_ms=5,
        state="done",
        entry_id="1-0",
        consumer="w",
        group="g",
        request="r",
        outcomes="o",
        requests="q",
    )

    assert call.keys() == ["q", "o", "r"]
    assert call.arguments() == ["g", "w", "1-0", "done", 5, "", "f", "trade", "", "a", "1"]
