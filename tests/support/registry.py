"""Versions in a registry, and waiting for what other processes do.

Owns: the shortest way for a test to fill a registry.
Must not know: bundles.
Invariant: nothing waits without a deadline, nor sleeps for a fixed time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from contracts.streams import StreamNames
from worker.lifecycle.publisher import Publisher, PublisherOptions
from worker.lifecycle.registry import Registration, Registry


def register(registry: Registry, strategy: str, *versions: str) -> None:
    """Register versions in `testing`."""
    for version in versions:
        registry.register(Registration(strategy=strategy, version=version, model_path=f"models/{strategy}/{version}"))


def sql(database_url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of one statement, made in a session of its own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Return whether the condition came true within the time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True


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
