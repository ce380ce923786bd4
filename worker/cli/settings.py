"""`signal-worker settings`: every setting, its value in force, its default and its meaning."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import Json, print_json, refuse, settings_of
from worker.cli._tables import Column, print_table
from worker.server_urls import without_password

if TYPE_CHECKING:
    from worker.settings import Settings

_HEADER = """# Settings

Environment variables, read once at start; an unknown `SIGNALS_…` name is refused.
Printed by `signal-worker settings --markdown`.

| name | default | meaning |
| --- | --- | --- |"""


def settings(
    *,
    markdown: Annotated[bool, typer.Option(help="Print the table of docs/settings.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting with the value that is in force here.

    JSON: a list of: name, value, default, meaning.

    Example: signal-worker settings --json
    """
    if markdown and as_json:
        refuse("settings takes --markdown or --json, one of them")
    if markdown:
        typer.echo(markdown_table())
        return
    rows = list(_rows(settings_of()))
    names = ("name", "value", "default", "meaning")
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(("name", *(Column(name, text=True) for name in names[1:])), rows)


def markdown_table() -> str:
    """Return the page of all settings."""
    from worker.settings import Settings

    rows = (
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |"
        for name, _, default, meaning in _rows(Settings.model_construct())
    )
    return "\n".join([_HEADER, *rows])


def _rows(values: "Settings") -> Iterator[tuple[str, str, str, str]]:
    from worker.settings import Settings, name_of

    for field, info in Settings.model_fields.items():
        value = getattr(values, field, info.default)
        yield name_of(field), _shown(value), _shown(info.default), info.description or ""


def _shown(value: object) -> str:
    if value is None or value == ():
        return ""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return without_password(text)
