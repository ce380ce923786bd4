"""What a worker knows that never reached its server, and the page of its metrics: `python -m tests.support.status`.

Owns: the table of `docs/metrics.md`, written from the metrics that a worker shows.
Must not know: how a metric is read.
Invariant: the text around the table is kept.
"""

import re
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contracts import StandingCandidate, StreamNames
from strategies.market.calendar import SessionCalendar
from tests.support.market import make_panel
from tests.support.serving import NOW, make_active
from worker.events import Events
from worker.fleet.drift import DriftWatch
from worker.fleet.health import Conditions, Liveness, Readiness
from worker.fleet.janitor import Janitor
from worker.fleet.metrics import WorkerMetrics
from worker.fleet.status import Backlog, WorkerStatus
from worker.retry import Outage
from worker.serving.leases import Leases
from worker.serving.pipeline import ServingRules
from worker.serving.request_stream import RequestStream
from worker.serving.shadow import Shadows
from worker.serving.slots import Slots
from worker.telemetry import Counters
from worker.transport.client import connect

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SYMBOLS = ("AAPL", "IBM")
CALENDAR = SessionCalendar("XNYS", first=date(2012, 1, 1), last=date(2014, 1, 1))
#: After the close of Thursday 2013-02-28.
READY_AT = datetime(2013, 3, 1, 12, 0, tzinfo=UTC)
CANDIDATES = (
    StandingCandidate(strategy="alpha_baseline", version="v2", part="canary", share=0.05, since=NOW, proven=True),
    StandingCandidate(strategy="alpha_baseline", version="v3", part="shadow", share=0.1, reason="not proven yet"),
)
_SUFFIXES = {"counter": "_total", "info": "_info"}
_TABLE = re.compile(r"(\| --- \| --- \| --- \| --- \|\n)(?:\| `signal_worker_.*\n)+")


class World:
    """A worker that can answer everything, to be spoilt piece by piece."""

    def __init__(self) -> None:
        self.slots, self.outage = Slots(), Outage("requests")
        self.started, self.paused, self.draining, self.registry_unavailable = (threading.Event() for _ in range(4))
        self.started.set()
        self.strategies: tuple[str, ...] = ()
        self.default_as_of: Any = "calendar"
        self.now = READY_AT
        self.slots.put_panel(make_panel(SYMBOLS, sessions=40, first=date(2013, 1, 2)))
        self.slots.put(make_active(SYMBOLS))

    @property
    def readiness(self) -> Readiness:
        """Whether it can answer, as it is now."""
        conditions = Conditions(
            started=self.started,
            paused=self.paused,
            draining=self.draining,
            registry_unavailable=self.registry_unavailable,
            strategies=self.strategies,
        )
        rules = ServingRules(calendar=CALENDAR, default_as_of=self.default_as_of)
        return Readiness(self.slots, rules, self.outage, conditions, lambda: self.now)

    @property
    def codes(self) -> list[str]:
        """Why it cannot."""
        return [reason.code for reason in self.readiness.reasons()]


def make_status() -> WorkerStatus:
    """Return the status of a worker that never reached its server."""
    world, names, client = World(), StreamNames(), connect("redis://127.0.0.1:1", "nobody")
    events = Events(client, names, "w1")
    control: Any = SimpleNamespace(malformed=8)
    return WorkerStatus(
        worker="w1",
        code_version="1.0",
        counters=Counters(),
        stream=RequestStream(client, client, names, "w1", lease_ms=1000),
        leases=Leases(client, names, "w1"),
        slots=world.slots,
        shadows=Shadows(world.slots, share=1.0, size=1),
        candidates=lambda: CANDIDATES,
        refused=tuple,
        drift=DriftWatch(world.slots, sessions=20, alarm_psi=0.25),
        janitor=Janitor(client, names, "w1", retentions=(), events=events, interval_seconds=1),
        backlog=Backlog(lag=7, pending=3),
        control=control,
        outages={"requests": world.outage},
        liveness=Liveness({}, {}),
        readiness=world.readiness,
    )


def page(text: str) -> str:
    """Return the page with the table of what a worker shows."""
    rows = [
        f"| `{family.name}{_SUFFIXES.get(family.type, '')}` | {family.type} | {_labels(family)} "
        f"| {family.documentation} |\n"
        for family in WorkerMetrics(make_status()).collect()
    ]
    return _TABLE.sub(lambda match: match[1] + "".join(rows), text, count=1)


def _labels(family: Any) -> str:
    return "worker, version" if family.type == "info" else ", ".join(family._labelnames)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
