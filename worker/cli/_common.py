"""What every verb of the command line begins with: settings and endpoints, or one sentence and exit code 2.

Owns: turning an impossible start into a sentence on stderr and an exit code.
Must not know: what a verb does.
Invariant: a refusal never shows a traceback.
"""

from typing import NoReturn

import typer

from worker.embedded import Endpoints, StackNotRunning, resolve_endpoints
from worker.errors import SettingsError
from worker.settings import Settings, load_settings

#: Exit code of a wrong call or an impossible setting.
USAGE = 2


def refuse(sentence: object, code: int = USAGE) -> NoReturn:
    """Print one sentence on stderr and end."""
    typer.echo(f"signal-worker: {sentence}", err=True)
    raise typer.Exit(code)


def settings_of(**overrides: object) -> Settings:
    """Return the settings, or end with a sentence."""
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        refuse(error)


def endpoints_of(settings: Settings) -> Endpoints:
    """Return where the servers are, or end with a sentence."""
    try:
        return resolve_endpoints(settings.redis_url, settings.database_url, settings.local_dir)
    except StackNotRunning as error:
        refuse(error)
