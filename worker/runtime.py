"""The process as a worker needs it: its log and its interpreter.

Owns: the format of the log, the code's version, the interpreter's settings.
Must not know: who logs what, what a worker does.
Invariant: stdout belongs to what a verb answers; no line shows what a variable holds unless it was logged.
"""

import logging
import sys
from importlib import metadata
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from worker.settings import LogFormat

#: Longest time for which a thread keeps the interpreter while another waits for it, in seconds. For so long a thread
#: that proves a model delays one that answers a request; Python's own 5 ms are five answers.
SWITCH_SECONDS = 0.0005
#: Parts of LightGBM that serving never calls; where they are installed, their import takes half of a worker's start.
_OPTIONAL = ("sklearn", "dask", "matplotlib", "graphviz")
#: Fields that a line begins with, so that people find them at the same place.
_FIRST = ("timestamp", "level", "event")


class _OurHandler(logging.StreamHandler[TextIO]):
    """The handler of this module, to be found again when logs are configured a second time."""


def configure_logs(level: str, form: LogFormat) -> None:
    """Send one line an event to stderr, coloured on a terminal, JSON elsewhere; libraries' warnings go the same way."""
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    # Plain tracebacks: rich ones show every local variable, a URL's password among them.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [
        structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
        _ordered,
        console if pretty else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _take_over_standard_logging(level, [structlog.stdlib.add_logger_name, *shared], last)


def _take_over_standard_logging(level: str, before: list[Processor], last: list[Processor]) -> None:
    """Write what libraries log or warn of in the same form, from WARNING on."""
    root, handler = logging.getLogger(), _OurHandler(sys.stderr)
    handler.setLevel(max(logging.WARNING, getattr(logging, level)))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    for ours in [one for one in root.handlers if isinstance(one, _OurHandler)]:
        root.removeHandler(ours)
    root.addHandler(handler)
    logging.captureWarnings(True)


def _ordered(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Return the event with the fields first that every line has."""
    return {**{name: event[name] for name in _FIRST if name in event}, **event}


def code_version() -> str:
    """Return the version of this code."""
    return metadata.version("signal-worker")


def configure_interpreter() -> None:
    """Let threads take short turns, and import LightGBM without its optional parts."""
    sys.setswitchinterval(SWITCH_SECONDS)
    import_lightgbm()


def import_lightgbm() -> None:
    """Import LightGBM as if its optional parts were not installed; others may import those afterwards."""
    hidden = [name for name in _OPTIONAL if name not in sys.modules]
    # Python's own mark of a module that cannot be imported.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # the stub knows modules alone
    try:
        import lightgbm  # noqa: F401, PLC0415 - after its optional parts are hidden
    finally:
        for name in hidden:
            del sys.modules[name]
