"""The log: one line an event, on stderr.

Owns: its format.
Must not know: who logs what.
Invariant: stdout belongs to what a verb answers; no line shows what a variable holds unless it was logged.
"""

import logging
import sys

import structlog

from worker.settings import LogFormat


def configure_logs(level: str, form: LogFormat) -> None:
    """Send one line an event to stderr: coloured on a terminal, JSON elsewhere."""
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    # Plain tracebacks: rich ones show every local variable, a URL's password among them.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
