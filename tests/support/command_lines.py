"""The verbs of the command line, as a walk over the application finds them, and the page that lists them.

Owns: finding every verb with its help, JSON and example; the text of `docs/cli.md`.
Must not know: what a verb does.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer.main

from worker.cli._common import ExitCode
from worker.cli.main import app

#: Verbs that print no facts: `run` logs, `demo` shows a walk through the other verbs.
WITHOUT_JSON = frozenset({"run", "demo"})

_HEAD = """# Command line

Printed by `python -m tests.support.command_lines`; `--help` after a verb lists its options.

On a terminal of any width no figure, name or id is cut: where the columns of a table do not fit, each row becomes a
block of lines. In a pipe, a row is one line of columns at their full width.
With `--json`, stdout is one JSON document with the fields below; times are ISO 8601 in UTC, a value that is not known
is null. Fields are added, and never renamed or removed within a major version. Logs and refusals go to stderr.

## Exit codes

| code | meaning |
| --- | --- |
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One verb."""

    #: Words after `signal-worker`.
    words: tuple[str, ...]
    #: The command as typer made it.
    command: Any
    #: Paragraphs of its help, without those of JSON and the example.
    about: str
    json: str | None
    example: str | None

    @property
    def name(self) -> str:
        """Return the words as they are typed."""
        return " ".join(self.words)

    @property
    def options(self) -> set[str]:
        """Return the names of its options."""
        return {name for parameter in self.command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def verbs() -> list[Verb]:
    """Return every verb, in the order of the help."""
    return list(_walk(typer.main.get_command(app), ()))


def page() -> str:
    """Return the page of all verbs."""
    codes = "".join(f"| {code.value} | {code.meaning} |\n" for code in ExitCode)
    sections = (_section(verb) for verb in verbs())
    return f"{_HEAD}{codes}\n## Verbs\n{''.join(sections)}"


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[Verb]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*words, name))
        return
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))]
    named = {one.partition(": ")[0]: one.partition(": ")[2] for one in paragraphs if _named(one)}
    about = "\n\n".join(one for one in paragraphs if not _named(one))
    yield Verb(words=words, command=command, about=about, json=named.get("JSON"), example=named.get("Example"))


def _named(paragraph: str) -> bool:
    return paragraph.startswith(("JSON: ", "Example: "))


def _section(verb: Verb) -> str:
    json = f"\nJSON: {verb.json}\n" if verb.json else ""
    return f"\n### `{verb.name}`\n\n{verb.about}\n{json}\nExample: `{verb.example}`\n"


if __name__ == "__main__":
    sys.stdout.write(page())
