"""The client's two twins behind one face, so that one test speaks of both.

Owns: running the asynchronous twin on an event loop of its own as if it blocked.
Must not know: what the clients do.
Invariant: nothing but waiting is added; a test that passes for one twin and not for the other has found a difference.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from worker.client import AsyncSignalClient, SignalClient

Twin = Literal["sync", "async"]
#: The methods of the asynchronous twin that are waited for.
_AWAITED = {"submit", "submit_many", "outcome", "result", "workers", "read", "ack"}


class Waiting:
    """An asynchronous client or feed whose methods block."""

    def __init__(self, runner: asyncio.Runner, inner: Any) -> None:
        self._runner, self._inner = runner, inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name == "signals":
            return self._feed(attribute)
        if name not in _AWAITED:
            return attribute
        return lambda *args, **options: self._runner.run(attribute(*args, **options))

    def __iter__(self) -> Iterator[Any]:
        steps = aiter(self._inner)

        async def following() -> Any:
            return await anext(steps)

        try:
            while True:
                try:
                    yield self._runner.run(following())
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(steps.aclose())

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._inner.aclose())

    def _feed(self, attribute: Callable[..., Any]) -> Callable[..., "Waiting"]:
        async def made(*args: object, **options: object) -> Any:
            return attribute(*args, **options)

        return lambda *args, **options: Waiting(self._runner, self._runner.run(made(*args, **options)))


@contextmanager
def clients(twin: Twin, url: str, namespace: str) -> Iterator[Any]:
    """Yield a client of the twin, and close it."""
    if twin == "sync":
        with SignalClient(url, namespace=namespace) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        waiting = Waiting(runner, AsyncSignalClient(url, namespace=namespace))
        try:
            yield waiting
        finally:
            waiting.close()
