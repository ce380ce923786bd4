"""Versions in a registry, and a publisher beside it.

Owns: the shortest way for a test to fill a registry, to look into it, and to have its changes published.
Must not know: bundles.
Invariant: no publisher outlives its test.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from contracts.streams import StreamNames
from worker.registry.publisher import Publisher, PublisherOptions
from worker.registry.registry import Registration, Registry


def register(registry: Registry, strategy: str, *versions: str) -> None:
    """Register versions in `testing`."""
    for version in versions:
        registry.register(Registration(strategy=strategy, version=version, model_path=f"models/{strategy}/{version}"))


def sql(database_url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of one statement, made in a session of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def as_login(database_url: str, role: str) -> str:
    """Return a URL whose sessions may do what the role may and nothing else."""
    return f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20role%3D{role}"


@contextmanager
def publishing(database_url: str, redis_url: str, namespace: str, *, poll_seconds: float = 0.2) -> Iterator[Publisher]:
    """Run a publisher in a thread, and stop it in the end."""
    options = PublisherOptions(poll_seconds=poll_seconds, backoff_max_seconds=0.2)
    with Publisher(database_url, redis_url, StreamNames(namespace), options) as publisher:
        thread = threading.Thread(target=publisher.run)
        thread.start()
        try:
            yield publisher
        finally:
            publisher.stop()
            thread.join(20)
            if thread.is_alive():
                raise TimeoutError("the publisher ran on 20 s after it was told to stop")
