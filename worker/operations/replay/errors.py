"""Errors of replay.

Owns: one class for each way in which a vector cannot be computed again.
Must not know: exit codes.
Invariant: a message names what is missing and where it was looked for.
"""

from worker.errors import WorkerError


class NotPublished(WorkerError):
    """No vector of that name stands on the stream or in the archive."""


class NotReproducible(WorkerError):
    """A vector whose bundle or snapshot is no longer here, so that nothing can be said of it."""
