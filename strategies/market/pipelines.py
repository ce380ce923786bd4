"""Pipelines: reading ahead of the caller, and writing behind it.

Owns: the threads of both, and how much may wait in them.
Must not know: what is read or written.
Invariant: results come in the order in which they were asked for; an error reaches the caller; memory is bounded.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Result = TypeVar("Result")
#: Results that may wait to be used, and writes that may wait for the disk.
WAITING = 16
#: Threads that write: each waits for the disk most of its time.
WRITERS = 4


class Ahead(Generic[Result]):
    """Reads what is asked for next while the caller works on what was read.

    Args:
        read: Returns what belongs to a name.
        names: In the order of use.
    """

    def __init__(self, read: Callable[[str], Result], names: Iterable[str]) -> None:
        self._read, self._names = read, names
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[str, Future[Result]]]:
        waiting: deque[tuple[str, Future[Result]]] = deque()
        for name in self._names:
            waiting.append((name, self._pool.submit(self._read, name)))
            if len(waiting) > WAITING:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


class Behind(Generic[Result]):
    """Writes what it is given while the caller works on what comes next.

    Args:
        write: Writes one thing.
    """

    def __init__(self, write: Callable[..., Result]) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="write-behind")
        self._waiting: deque[tuple[str, Future[Result]]] = deque()
        self._results: dict[str, Result] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def put(self, name: str, *given: Any) -> None:  # noqa: ANN401 - what `write` takes
        """Write something under a name; wait where too much waits already."""
        self._waiting.append((name, self._pool.submit(self._write, *given)))
        if len(self._waiting) > WAITING:
            self._take()

    def results(self) -> dict[str, Result]:
        """Return name to result, in the order of `put`, when everything is written."""
        while self._waiting:
            self._take()
        return self._results

    def _take(self) -> None:
        name, written = self._waiting.popleft()
        self._results[name] = written.result()
