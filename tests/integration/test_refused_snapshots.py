"""A snapshot that fails its checks: what serves, what the events stream and the reconciler state."""

import threading
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from contracts import FleetEvent, FleetEventType, StreamNames
from contracts.codec import decode
from strategies.market.appending import append_bars
from strategies.market.calendar import SessionCalendar
from strategies.market.snapshots import latest_snapshot, load_panel
from strategies.models.machine_proof import prove_machine
from tests.support.market import make_bars, write_snapshot, xnys
from tests.support.serving import open_client
from worker.events import Events
from worker.lifecycle.candidates import Candidates
from worker.lifecycle.failure_reporter import FailureReporter, PeerHeartbeats
from worker.lifecycle.last_known_good import LastKnownGood
from worker.lifecycle.loader import ModelSources
from worker.lifecycle.reconciler import Reconciler
from worker.lifecycle.refusals import Machine, Refusals
from worker.registry.registry import Registry
from worker.serving.shadow import Shadows
from worker.serving.slots import Slots
from worker.transport.client import pairs_of

NAMES = tuple(f"S{number:02d}" for number in range(12))
RUN = date(2014, 1, 2)


class Worker:
    """The control side of one worker, each look made by the test."""

    def __init__(self, folder, valkey_url, database_url, namespace):
        self._client, self._names = open_client(valkey_url, "test"), StreamNames(namespace)
        self.events, self.slots, self.registry = Events(self._client, self._names, "w"), Slots(), Registry(database_url)
        sources = ModelSources(
            artifacts_dir=folder / "artifacts",
            data_dir=folder / "data",
            calendar=SessionCalendar("XNYS"),
            allow_unproven=False,
            cache=LastKnownGood(folder / "proven"),
        )
        peers, refusals = PeerHeartbeats(self._client, self._names, "w"), Refusals()
        self.reconciler = Reconciler(
            self.registry,
            self.slots,
            self.events,
            sources=sources,
            candidates=Candidates(self.slots, Shadows(self.slots, share=0.0, size=1), sources, limit=1),
            reporter=FailureReporter(
                self.registry, self.events, peers, refusals=refusals, machine=Machine(prove_machine)
            ),
            refusals=refusals,
            registry_unavailable=threading.Event(),
        )

    def published(self, kind):
        rows = self._client.execute_command("XRANGE", self._names.events, "-", "+")
        events = [decode(FleetEvent, pairs_of(flat)) for _, flat in rows]
        return [event for event in events if event.type == kind]


@pytest.fixture
def worker(tmp_path, valkey_url, database_url, namespace):
    found = Worker(tmp_path, valkey_url, database_url, namespace)
    yield found
    found.registry.close()


def session(frames, row, names=NAMES):
    return pd.concat([frames[name].iloc[[row]].assign(symbol=name) for name in names])


def append(folder, table, days):
    path = folder / f"day{days}.csv"
    table.to_csv(path, index=False)
    return append_bars(path, folder / "data", run_date=RUN + timedelta(days=days))


def test_snapshot_that_fails_is_not_served_until_a_better_one_comes(worker, tmp_path):
    frames = {name: make_bars(seed=seed, sessions=90) for seed, name in enumerate(NAMES)}
    write_snapshot(tmp_path / "data", {name: frame.iloc[:80] for name, frame in frames.items()}, run_date=RUN)
    worker.reconciler.reconcile()
    served = worker.slots.panel

    append(tmp_path, session(frames, 80, NAMES[:4]), 1)
    worker.reconciler.reconcile()
    worker.reconciler.reconcile()

    assert worker.slots.panel is served
    assert "4 of 12 symbols have a bar" in worker.reconciler.snapshot_refused
    [event] = worker.published(FleetEventType.SNAPSHOT_FAILED)
    assert "last_session_coverage" in event.reason
    append(tmp_path, session(frames, 80, NAMES[4:]), 2)
    worker.reconciler.reconcile()
    assert worker.reconciler.snapshot_refused == ""
    full = load_panel(latest_snapshot(tmp_path / "data"), xnys())
    assert worker.slots.panel.snapshot_id == full.snapshot_id
    np.testing.assert_array_equal(worker.slots.panel.fields["close"], full.fields["close"])
    assert len(worker.published(FleetEventType.SNAPSHOT_LOADED)) == 2
