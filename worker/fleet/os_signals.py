"""Signals to this process, heard on a thread of their own.

Owns: the way from the kernel to what is done about a signal.
Must not know: what that is.
Invariant: nothing is done inside a handler. A handler runs between two instructions of the main thread, which may hold
the lock of a log line or of an event just then: taking that lock once more would wait for ever.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HEARD = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def hearing(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have each SIGTERM and SIGINT told to `act`, in their order; belongs to the main thread.

    Args:
        act: Runs on a thread of its own; what it raises ends the hearing.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    listener = threading.Thread(target=_listen, args=(ours, act), name="signals", daemon=True)
    listener.start()
    # Written by the handler in C, on whichever thread the kernel chose; the one in Python only has to be there.
    woken_before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _nothing) for number in HEARD}
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
    while told := os.read(ours, 64):
        for number in told:
            if number in HEARD:
                act(signal.Signals(number))


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass
