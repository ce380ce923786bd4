"""Parts of a worker that follow from its settings alone.

Owns: the way from settings to the bounds of the loop, the rules of every request and the places of bundles and bars.
Must not know: connections, threads.
Invariant: nothing is connected, read or started here but the exchange's sessions.
"""

from pathlib import Path

from strategies.errors import DataError
from strategies.market.calendar import SessionCalendar
from strategies.market.calendar_files import open_calendar
from worker.errors import SettingsError
from worker.lifecycle.last_known_good import ProvenModels
from worker.lifecycle.loader import Sources
from worker.serving.consumer import Limits
from worker.serving.pipeline import Rules
from worker.settings import Settings


def session_calendar(name: str, data_dir: Path | None = None) -> SessionCalendar:
    """Return the exchange's sessions, as far back and ahead as they are known.

    A file `calendars/<name>.yaml`, below the data directory or the working directory, comes before the library.

    Raises:
        SettingsError: There is no such exchange.
    """
    try:
        return open_calendar(name, data_dir)
    except DataError as error:
        raise SettingsError(f"setting calendar: {error}") from error


def rules_of(settings: Settings) -> Rules:
    """Return what the settings say about every request.

    Raises:
        SettingsError: There is no such exchange.
    """
    return Rules(
        calendar=session_calendar(settings.calendar, settings.data_dir),
        settle_minutes=settings.settle_minutes,
        stale_after_sessions=settings.stale_after_sessions,
        min_bars_share=settings.min_bars_share,
        default_as_of=settings.default_as_of,
        threads=settings.threads,
        explain_features=settings.explain_features,
        explain_symbols=settings.explain_symbols,
    )


def limits_of(settings: Settings) -> Limits:
    """Return the bounds of the loop."""
    return Limits(
        batch_count=settings.batch_count,
        batch_bytes=settings.batch_bytes,
        block_ms=settings.block_ms,
        lease_ms=settings.lease_ms,
        claim_interval_ms=settings.claim_interval_ms,
        max_deliveries=settings.max_deliveries,
        max_entry_bytes=settings.max_entry_bytes,
        max_symbols=settings.max_symbols,
        shutdown_timeout_seconds=settings.shutdown_timeout_seconds,
    )


def sources_of(settings: Settings, calendar: SessionCalendar) -> Sources:
    """Return where bundles and bars lie."""
    return Sources(
        artifacts_dir=settings.artifacts_dir,
        data_dir=settings.data_dir,
        calendar=calendar,
        allow_unproven=settings.allow_unproven,
        cache=ProvenModels(settings.local_dir / "proven" / settings.namespace),
        serve_from_cache=settings.serve_from_cache,
    )
