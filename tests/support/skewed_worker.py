"""Workers whose clock is wrong: `python -m tests.support.skewed_worker <hours> run`.

Owns: the shift of every clock that a worker of this process reads for what it says and decides.
Must not know: what depends on it.
Invariant: monotonic clocks stay as they are, as no machine's own setting changes them.
"""

import sys
from datetime import UTC, datetime, timedelta

from worker import clock

_HOURS = timedelta(hours=float(sys.argv.pop(1)))


def shifted_now() -> datetime:
    """Return the instant that this process takes for now."""
    return datetime.now(UTC) + _HOURS


# Before any other module takes it from there.
clock.utc_now = shifted_now

from worker.cli.main import main  # noqa: E402 - it imports what was just replaced

if __name__ == "__main__":
    main()
