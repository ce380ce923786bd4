"""The user as whom PostgreSQL runs, and what that user can reach.

Owns: the unprivileged account that replaces root, and the question which folders it can enter.
Must not know: which server needs it.
Invariant: no account is made, and no folder that is not ours is opened to others.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user by number."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return the account for a server that refuses root; None where we are not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(NOBODY)
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def can_enter(path: Path, account: Account) -> bool:
    """Return whether the account may pass through the folder and all above it, by their modes."""
    return all(_searchable(folder.stat(), account) for folder in (path, *path.parents))


def _searchable(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
