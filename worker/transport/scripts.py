"""Scripts that run on the stream server: the files of `lua/`.

Owns: loading a script, and what scripts answer.
Must not know: who calls one, and why.
Invariant: a script is one step for every other client of the server.
"""

from enum import StrEnum
from importlib import resources

from redis.commands.core import Script

from worker.transport.client import Client


class CommitStatus(StrEnum):
    """What the server did with an outcome."""

    COMMITTED = "committed"
    #: The request id has an outcome already; the entry was only acknowledged.
    DUPLICATE = "duplicate"
    #: Likewise, and the outcome answers another question: two producers took one id.
    CONFLICT = "conflict"
    #: Another consumer owns the entry; nothing was written.
    FENCED = "fenced"
    #: The deadline passed; nothing was written.
    LATE = "late"
    #: No outcome was given, and the request id has none; nothing was written.
    OPEN = "open"


def script(client: Client, name: str) -> Script:
    """Return a script of `lua/`; it is loaded again by itself after SCRIPT FLUSH."""
    source = resources.files("worker.transport").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return client.register_script(source)
