"""The judge of many activations: which model computed each vector, and was it the one that the registry named?

Owns: the comparison of every outcome with registry, bundles and snapshot, and the recomputation of every vector.
Must not know: workers, faults.
Invariant: it trusts no counter and no log, only entries, rows and files.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from contracts import ContractError, ControlEvent, SignalVector
from contracts.codec import decode
from strategies.models.bundle_files import digest
from tests.support.registry import sql
from tests.support.serving import Streams
from worker.operations.archive import stream_entries
from worker.operations.replay.audit import ReplayOutcome, audit
from worker.operations.replay.lineage import LineageResolver
from worker.operations.replay.published import Published
from worker.registry.models import Activation
from worker.registry.registry import Registry
from worker.runtime import code_version

_UNPUBLISHED = "SELECT id FROM registry_outbox WHERE published_at IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What streams, registry and files say of a run; every field but the counts is a list of faults."""

    requests: int
    answered: int
    #: Rows of the history.
    activations: int
    #: Activations under which at least one vector was published.
    served: int
    #: Vectors that were computed again and came out bit for bit.
    identical: int
    #: Request ids without an outcome, with more than one, refused, or that nobody asked for.
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    rejected: tuple[str, ...]
    strange: tuple[str, ...]
    #: Request ids whose vector names an activation that the registry does not know, or knows with another version.
    unknown: tuple[str, ...]
    #: Request ids whose vector has other digests than the bundle of its version.
    mislabelled: tuple[str, ...]
    #: Request ids whose vector is older than the activation it names.
    early: tuple[str, ...]
    #: Request ids whose vector came out otherwise when it was computed again.
    different: tuple[str, ...]
    #: Request ids whose worker had answered under a later activation of that strategy before.
    went_back: tuple[str, ...]
    #: Numbers that the history leaves out.
    gaps: tuple[str, ...]
    #: Versions that were marked failed, though all of them are sound.
    failed: tuple[str, ...]
    #: Activations that the control stream never told, or told for the first time after a later one.
    untold: tuple[str, ...]
    #: Rows of the outbox that are not marked.
    unpublished: tuple[str, ...]
    #: Entries delivered and not acknowledged.
    pending: tuple[str, ...]

    @property
    def faults(self) -> Mapping[str, tuple[str, ...]]:
        """Return what is wrong, by kind."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, tuple) and value}

    def __str__(self) -> str:
        counts = f"{self.requests} requests, {self.answered} answered, {self.served} of {self.activations} activations"
        examples = {name: (len(found), found[:3]) for name, found in self.faults.items()}
        return f"{counts} served, {self.identical} identical, faults {examples}"


def judge(streams: Streams, database_url: str, folder: Path, asked: Sequence[str]) -> Verdict:
    """Compare what stands on the streams with the registry, and compute every vector again.

    Args:
        streams: Where the run happened; no worker may be running there any more.
        database_url: Of the registry.
        folder: With `data` and `artifacts`.
        asked: Request ids that the server accepted.
    """
    published = list(_published(streams))
    refused = [rejection.request_id for rejection in streams.each_rejection()]
    times = Counter([*(one.vector.request_id for one in published), *refused])
    with Registry(database_url) as registry:
        history = sorted(registry.history(limit=1_000_000), key=lambda row: row.activation)
    known = {row.activation: row for row in history if row.action in {"activated", "rolled_back"}}
    findings = list(audit(published, LineageResolver(folder / "artifacts", folder / "data"), code_version()))
    identical = [one for one in findings if one.outcome is ReplayOutcome.IDENTICAL]
    return Verdict(
        requests=len(asked),
        answered=len(published),
        activations=len(history),
        served=len({one.vector.activation for one in published}),
        identical=len(identical),
        lost=tuple(request_id for request_id in asked if request_id not in times),
        doubled=tuple(request_id for request_id, count in times.items() if count > 1),
        rejected=tuple(refused),
        strange=tuple(times.keys() - set(asked)),
        unknown=tuple(_unknown(published, known)),
        mislabelled=tuple(_mislabelled(published, folder / "artifacts" / "models")),
        early=tuple(_early(published, known)),
        different=tuple(
            one.published.vector.request_id for one in findings if one.outcome is not ReplayOutcome.IDENTICAL
        ),
        went_back=tuple(_went_back(published)),
        gaps=tuple(str(number) for number in {*range(1, len(history) + 1)} - {row.activation for row in history}),
        failed=tuple(f"{row.strategy} {row.version}" for row in history if row.activation not in known),
        untold=tuple(_untold(streams, history)),
        unpublished=tuple(str(row[0]) for row in sql(database_url, _UNPUBLISHED)),
        pending=tuple(streams.deliveries()),
    )


def _published(streams: Streams) -> Iterator[Published]:
    for entry_id, pairs in stream_entries(streams.client, streams.names.results):
        yield Published(entry_id=entry_id, vector=decode(SignalVector, pairs), found_in="stream")


def _unknown(published: Sequence[Published], known: Mapping[int, Activation]) -> Iterator[str]:
    for vector in (one.vector for one in published):
        row = known.get(vector.activation)
        if row is None or (row.strategy, row.to_version) != (vector.strategy, vector.model_version):
            yield vector.request_id


def _mislabelled(published: Sequence[Published], models: Path) -> Iterator[str]:
    digests: dict[Path, tuple[str, str]] = {}
    for vector in (one.vector for one in published):
        bundle = models / vector.strategy / vector.model_version
        if bundle not in digests:
            model, manifest = ((bundle / name).read_bytes() for name in ("model.txt", "bundle.json"))
            digests[bundle] = digest(model), digest(manifest)
        if digests[bundle] != (vector.model_sha256, vector.bundle_sha256):
            yield vector.request_id


def _early(published: Sequence[Published], known: Mapping[int, Activation]) -> Iterator[str]:
    for vector in (one.vector for one in published):
        row = known.get(vector.activation)
        if row is not None and vector.generated_at < row.at:
            yield vector.request_id


def _went_back(published: Sequence[Published]) -> Iterator[str]:
    by_worker: dict[tuple[str, str], list[Published]] = {}
    for one in published:
        by_worker.setdefault((one.vector.worker, one.vector.strategy), []).append(one)
    for ordered in by_worker.values():
        for before, after in pairwise(ordered):
            if after.vector.activation < before.vector.activation:
                yield after.vector.request_id


def _untold(streams: Streams, history: Sequence[Activation]) -> Iterator[str]:
    told: dict[int, None] = {}
    for _, pairs in stream_entries(streams.client, streams.names.control):
        try:
            event = decode(ControlEvent, pairs)
        except ContractError:
            continue  # put there by the run
        if event.activation is not None:
            told.setdefault(event.activation)
    ordered = list(told)
    yield from (str(row.activation) for row in history if row.activation not in told)
    yield from (str(after) for before, after in pairwise(ordered) if after < before)
