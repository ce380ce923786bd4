"""Loading: the newest snapshot that passes its checks, as a panel.

Owns: which snapshot serves, and what is remembered of those that do not.
Must not know: workers, events, how bars are checked.
Invariant: a snapshot that did not pass never serves; the one before it serves on. An unreadable snapshot is an error:
nothing says whether it would have passed, so no older one takes its place.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from strategies.errors import DataError, SnapshotNotFound, SnapshotRefused
from strategies.market.bars import Panel
from strategies.market.calendar import SessionCalendar
from strategies.market.extending import SPARE, extended
from strategies.market.rules import Rules
from strategies.market.snapshots import SnapshotRef, load_panel, newest_first, require_passed, stated_results

#: Snapshots that are tried before none is found to serve.
TRIED = 10


@dataclass(slots=True, kw_only=True)
class Loading:
    """Loads what may serve from one data directory."""

    data_dir: Path
    calendar: SessionCalendar
    rules: Rules = field(default_factory=Rules)
    #: Names of the limits in `rules` that this worker was given: a manifest that states other ones does not decide.
    given: Collection[str] = ()
    #: Folder and id to why the snapshot is not served.
    _refused: dict[tuple[str, str], str] = field(default_factory=dict)
    #: What was loaded last.
    _loaded: SnapshotRef | None = None

    def newer(self, serving: Panel | None) -> tuple[SnapshotRef, Panel] | None:
        """Return the newest snapshot that passes, if it is not the one that serves.

        Raises:
            SnapshotNotFound: There is no snapshot.
            DataError: The newest one is unreadable.
            SnapshotRefused: None passes, and none serves.
        """
        refused = ""
        for tried, snapshot in enumerate(newest_first(self.data_dir)):
            if serving is not None and snapshot.id == serving.snapshot_id:
                return None
            if tried == TRIED:
                break
            try:
                panel = self._load(snapshot, serving)
            except SnapshotRefused as error:
                refused = refused or error.reasons
                continue
            self._loaded = snapshot
            return snapshot, panel
        else:
            if not refused:
                raise SnapshotNotFound(f"no complete snapshot below {self.data_dir / 'adjusted'}")
        if serving is None:
            raise SnapshotRefused("every run date", "-", refused)
        return None

    def refused(self) -> str:
        """Return why the newest snapshot is not served; empty: it is."""
        newest = next(newest_first(self.data_dir), None)
        if newest is None or (newest.path.name, newest.id) not in self._refused:
            return ""
        return str(SnapshotRefused(newest.path.name, newest.id, self._refused[newest.path.name, newest.id]))

    def _load(self, snapshot: SnapshotRef, serving: Panel | None) -> Panel:
        key = (snapshot.path.name, snapshot.id)
        results = stated_results(snapshot.manifest, self.rules, self.given).values()
        stated = "; ".join(f"{check.name}: {check.detail}" for check in results if not check.passed)
        if stated or key in self._refused:
            self._refused.setdefault(key, stated)
            raise SnapshotRefused(*key, self._refused[key])
        try:
            panel = self._panel(snapshot, serving)
            require_passed(snapshot, panel, self.rules, given=self.given)
        except SnapshotRefused as error:
            self._refused[key] = error.reasons
            raise
        return panel

    def _panel(self, snapshot: SnapshotRef, serving: Panel | None) -> Panel:
        """Return the panel of a snapshot; of one that was appended to what serves, only the appended bars are read."""
        before = self._loaded
        if serving is not None and before is not None and before.id == serving.snapshot_id and snapshot.manifest.parts:
            try:
                return extended(serving, before, snapshot, self.calendar)
            except DataError:
                pass  # it was made from another one: whatever is wrong with it shows when it is read
        return load_panel(snapshot, self.calendar, spare=SPARE)
