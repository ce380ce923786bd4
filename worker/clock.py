"""The clock of this machine.

Owns: what "now" is; deadlines and leases are kept by the stream server's clock.
Must not know: who asks.
Invariant: every instant has a time zone, UTC.
"""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the instant of now, UTC."""
    return datetime.now(UTC)
