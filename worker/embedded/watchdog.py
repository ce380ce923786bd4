"""The process that ends the servers when their owner is gone, where the kernel does not.

Owns: waiting for the owner's death, and ending both servers of one directory then.
Must not know: how servers are started.
Invariant: the owner's end of the pipe closes however the owner dies, and nothing else is waited for.

Used off Linux, and on Linux where another thread than the main one starts the servers: the kernel's own signal
(PR_SET_PDEATHSIG) comes when the starting thread ends, not the process.
"""

import signal
import subprocess
import sys
from pathlib import Path

from worker.embedded.processes import clean_environment
from worker.embedded.servers import end_servers


def spawn(directory: Path) -> subprocess.Popen[bytes]:
    """Start the watchdog of this process; closing its `stdin` or dying sets it off."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker.embedded.watchdog", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        env=clean_environment(),
        start_new_session=True,
    )


def dismiss(watchdog: subprocess.Popen[bytes]) -> None:
    """End the watchdog; the owner ends the servers itself again."""
    watchdog.kill()
    watchdog.communicate()


def guard(watchdog: subprocess.Popen[bytes], pid: int) -> None:
    """Name a server to the watchdog that is to end with its owner."""
    pipe = watchdog.stdin
    if pipe is not None:
        pipe.write(b"%d\n" % pid)
        pipe.flush()


def watch(directory: Path) -> None:
    """Wait for the owner's end, then end its servers; servers that another owner started since live on."""
    named = sys.stdin.buffer.read()
    end_servers(directory, only={int(pid) for pid in named.split()})


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(Path(sys.argv[1]))
