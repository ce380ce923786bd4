"""Names on the server.

Owns: the key of every stream and hash, under one namespace.
Must not know: clients, commands, contents.
Invariant: every key begins with the namespace, so that access rules can name all of them.
"""

import re
from dataclasses import dataclass

#: Names of partitions; empty: the stream of no partition.
PARTITION = r"^([a-z0-9][a-z0-9_-]{0,39})?$"
#: The consumer group of all workers on the requests stream.
GROUP = "workers"


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The keys of one namespace."""

    namespace: str = "signals"
    #: Name of a request stream of its own, and so of the workers that read it; empty: the stream of all others.
    partition: str = ""

    def __post_init__(self) -> None:
        """Check the partition.

        Raises:
            ValueError: No worker can be configured for it.
        """
        if not re.fullmatch(PARTITION, self.partition):
            raise ValueError(f"a partition has 1 to 40 small letters, digits, _ or -, was {self.partition!r:.60}")

    @property
    def requests(self) -> str:
        """Stream that producers XADD to."""
        return f"{self.namespace}:requests" + (f":{self.partition}" if self.partition else "")

    def default_id(self, entry_id: str) -> str:
        """Return the request id of an entry that has none: two streams may give two entries the same id."""
        return f"{self.partition}:{entry_id}" if self.partition else entry_id

    @property
    def results(self) -> str:
        """Stream of signal vectors that may be traded, and of nothing else."""
        return f"{self.namespace}:results"

    @property
    def probes(self) -> str:
        """Stream of vectors of requests whose purpose is `probe`; never traded."""
        return f"{self.namespace}:probes"

    @property
    def rejections(self) -> str:
        """Stream of requests that could not be answered."""
        return f"{self.namespace}:rejections"

    @property
    def control(self) -> str:
        """Stream of hints that something changed; every worker reads it for itself."""
        return f"{self.namespace}:control"

    @property
    def events(self) -> str:
        """Stream of what workers did."""
        return f"{self.namespace}:events"

    @property
    def shadow(self) -> str:
        """Stream of vectors of models in testing; never traded."""
        return f"{self.namespace}:shadow"

    @property
    def janitor(self) -> str:
        """Lease of the worker that cuts streams and removes dead consumers just now, one for each request stream."""
        return f"{self.namespace}:janitor" + (f":of:{self.partition}" if self.partition else "")

    @property
    def behind(self) -> str:
        """Set of `stream|group` that keep entries older than the stream's retention, as reported."""
        return f"{self.namespace}:janitor:behind"

    def given(self, worker: str) -> str:
        """Set of entries that other workers gave to one worker, until it takes them up."""
        return f"{self.namespace}:given:{worker}"

    def request(self, request_id: str) -> str:
        """Hash with the outcome of one request id."""
        return f"{self.namespace}:request:{request_id}"

    def worker(self, name: str) -> str:
        """Hash with the heartbeat of one worker."""
        return f"{self.namespace}:worker:{name}"
