"""Signals to this process, handled on a thread of their own.

Owns: the way from the kernel to what is done about a signal.
Must not know: what that is.
Invariant: nothing is done inside a handler. A handler runs between two instructions of the main thread, which may own
the lock of a log line or of an event just then: taking that lock once more would wait for ever.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handle_signals(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `act` with each SIGTERM and SIGINT, in their order; belongs to the main thread.

    Args:
        act: Runs on a thread of its own; what it raises ends the handling.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    listener = threading.Thread(target=_listen, args=(ours, act), name="signals", daemon=True)
    listener.start()
    # Written by the handler in C, on whichever thread the kernel chose; the one in Python only has to be there.
    woken_before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _nothing) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        os.close(theirs)
        listener.join()
        os.close(ours)


def _listen(ours: int, act: Callable[[signal.Signals], None]) -> None:
    while received := os.read(ours, 64):
        for number in received:
            if number in HANDLED:
                act(signal.Signals(number))


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass
